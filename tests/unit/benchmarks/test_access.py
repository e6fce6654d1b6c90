from benchmarks.decision.access import measure


async def test_every_cost_of_keys_and_limits_is_measured() -> None:
    costs = await measure(rounds=1)
    assert len(costs) == 6
    assert all(microseconds > 0 for microseconds in costs.values())
