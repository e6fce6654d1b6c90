from benchmarks.decision.overtaken import measure


async def test_watching_is_measured_against_the_same_request_unwatched() -> None:
    found = await measure(rounds=1)
    assert found.keys() == {"unwatched", "watched", "look", "ratio"}
    assert found["watched"] > found["unwatched"] > 0
    assert found["ratio"] == found["watched"] / found["unwatched"]
    assert found["look"] > 0
