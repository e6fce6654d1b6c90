from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaling.budget import LINGER_S, Claim, Ledger, allocate

BUDGETS = st.integers(0, 60)


@st.composite
def claims_of(draw: st.DrawFn) -> dict[str, Claim]:
    wanted = st.integers(0, 12)
    apps = draw(st.lists(st.sampled_from("abcdef"), unique=True))
    return {
        app: Claim(draw(st.sampled_from([0, 1, 2, 4, 8])), draw(st.integers(0, 3)), draw(st.integers(0, 3)), draw(wanted))
        for app in apps
    }


def cost(claims: dict[str, Claim], given_: dict[str, int]) -> int:
    return sum(claims[app].units * count for app, count in given_.items())


@given(claims=claims_of(), more=BUDGETS)
def test_what_is_given_is_between_the_least_and_what_is_wanted_and_never_over_the_budget(
    claims: dict[str, Claim], more: int
) -> None:
    least = {app: min(claim.least, claim.wanted) for app, claim in claims.items()}
    budget = cost(claims, least) + more
    given_ = allocate(claims, budget)
    assert list(given_) == list(claims)
    assert all(least[app] <= given_[app] <= claim.wanted for app, claim in claims.items())
    assert cost(claims, given_) <= budget


@given(claims=claims_of(), budget=BUDGETS)
def test_accelerators_are_left_only_where_they_make_no_replica_that_is_wanted(claims: dict[str, Claim], budget: int) -> None:
    given_ = allocate(claims, budget)
    left = budget - cost(claims, given_)
    assert all(given_[app] == claim.wanted or claim.units > left for app, claim in claims.items())


@given(claims=claims_of(), budget=BUDGETS)
def test_a_lower_priority_never_takes_anything_from_a_higher_one(claims: dict[str, Claim], budget: int) -> None:
    top = max((claim.priority for claim in claims.values()), default=0)
    low = {app: replace(claim, least=0) for app, claim in claims.items() if claim.priority < top}
    high = {app: claim for app, claim in claims.items() if claim.priority == top}
    given_ = allocate({**low, **high}, budget)
    assert {app: given_[app] for app in high} == allocate(high, budget)


@given(wanted=st.lists(st.integers(1, 20), min_size=2, max_size=5), budget=st.integers(0, 100))
def test_within_one_priority_shares_differ_by_one_replica_at_most(wanted: list[int], budget: int) -> None:
    claims = {f"a{i}": Claim(1, wanted=count) for i, count in enumerate(wanted)}
    given_ = allocate(claims, budget)
    shares = [given_[app] / claim.wanted for app, claim in claims.items()]
    fewer = [(given_[app] - 1) / claim.wanted for app, claim in claims.items()]
    assert max(fewer) <= min(shares) + 1e-9


@pytest.mark.parametrize(
    ("claims", "budget", "expected"),
    [
        pytest.param({}, 4, {}, id="nobody"),
        pytest.param({"a": Claim(1, wanted=3), "b": Claim(1, 9, wanted=3)}, 4, {"a": 1, "b": 3}, id="priority-first"),
        pytest.param({"a": Claim(1, 0, 2, 3), "b": Claim(1, 9, wanted=3)}, 4, {"a": 2, "b": 2}, id="least-before-priority"),
        pytest.param({"a": Claim(4, wanted=3)}, 7, {"a": 1}, id="a-group-is-whole"),
        pytest.param({"a": Claim(4, 9, wanted=2), "b": Claim(1, wanted=9)}, 7, {"a": 1, "b": 3}, id="the-rest-goes-on"),
        pytest.param({"a": Claim(0, wanted=9), "b": Claim(1, 9, wanted=3)}, 1, {"a": 9, "b": 1}, id="no-accelerators"),
        pytest.param({"a": Claim(1, wanted=6), "b": Claim(1, wanted=3)}, 6, {"a": 4, "b": 2}, id="shares-alike"),
        pytest.param({"a": Claim(1, least=3, wanted=0)}, 6, {"a": 0}, id="least-that-nobody-wants"),
    ],
)
def test_who_gets_what(claims: dict[str, Claim], budget: int, expected: dict[str, int]) -> None:
    assert allocate(claims, budget) == expected


@given(claims=claims_of(), targets=st.lists(st.integers(0, 9), min_size=6, max_size=6))
def test_without_a_budget_everything_wanted_is_granted(claims: dict[str, Claim], targets: list[int]) -> None:
    ledger = Ledger()
    for (app, claim), target in zip(claims.items(), targets, strict=False):
        assert ledger.grant(app, claim, target=target, now_s=0.0) == claim.wanted


def test_what_needs_no_accelerator_is_granted_beside_a_full_budget() -> None:
    ledger = Ledger(2)
    assert ledger.grant("llm", Claim(1, wanted=2), target=0, now_s=0.0) == 2
    assert ledger.grant("embedder", Claim(0, wanted=7), target=0, now_s=0.0) == 7


def test_a_higher_priority_grows_only_after_the_lower_one_has_shrunk_and_its_replicas_are_gone() -> None:
    ledger = Ledger(8)
    low, high = Claim(2, 1, least=1, wanted=4), Claim(2, 9, least=0, wanted=2)
    assert ledger.grant("low", low, target=4, now_s=0.0) == 4
    assert ledger.grant("high", high, target=0, now_s=0.0) == 0
    assert ledger.grant("low", low, target=4, now_s=1.0) == 2
    assert ledger.grant("high", high, target=0, now_s=1.0) == 0
    assert ledger.grant("high", high, target=0, now_s=1.0 + LINGER_S) == 0
    assert ledger.grant("high", high, target=0, now_s=1.1 + LINGER_S) == 2
    assert ledger.grant("low", low, target=2, now_s=1.2 + LINGER_S) == 2


def test_replicas_that_the_directory_still_names_count_for_as_long_as_it_does() -> None:
    ledger = Ledger(4)
    ledger.grant("low", Claim(1, 1, wanted=0, alive=4), target=4, now_s=0.0)
    for now_s in (1.0, 100.0, 1000.0):
        ledger.grant("low", Claim(1, 1, wanted=0, alive=3), target=0, now_s=now_s)
    assert ledger.in_use(1000.0) == 3
    assert ledger.grant("high", Claim(1, 9, wanted=4), target=0, now_s=1000.0) == 1


def test_a_group_is_granted_as_a_whole_or_not() -> None:
    ledger = Ledger(11)
    assert ledger.grant("a", Claim(4, wanted=5), target=0, now_s=0.0) == 2
    assert ledger.grant("b", Claim(4, wanted=5), target=0, now_s=0.0) == 0


def test_a_budget_that_is_lowered_takes_replicas_away() -> None:
    ledger = Ledger(8)
    assert ledger.grant("a", Claim(1, wanted=8), target=8, now_s=0.0) == 8
    ledger.budget = 5
    assert ledger.grant("a", Claim(1, wanted=8), target=8, now_s=1.0) == 5


def test_an_application_that_goes_is_forgotten_once_nothing_of_it_is_left() -> None:
    ledger = Ledger(4)
    ledger.grant("old", Claim(1, wanted=3, alive=3), target=3, now_s=0.0)
    used = []
    for now_s, alive in ((1.0, 3), (1.1 + LINGER_S, 2), (60.0, 2), (61.0, 0), (62.0, 4)):
        ledger.keep(["new"], {"old": alive}, now_s=now_s)
        used.append(ledger.in_use(now_s))
    assert used == [3, 2, 2, 0, 0]


def test_an_application_that_stays_is_kept_as_it_is() -> None:
    ledger = Ledger(4)
    ledger.grant("a", Claim(1, wanted=3), target=0, now_s=0.0)
    ledger.keep(["a"], {}, now_s=1.0)
    assert ledger.in_use(1.0) == 3


@dataclass
class Cluster:
    """Applications on real accelerators: a replica that was asked to go holds its own until it has drained."""

    ledger: Ledger
    units: dict[str, int]
    random: Random
    longest_drain_s: float
    targets: dict[str, int] = field(default_factory=dict)
    draining: list[tuple[float, str]] = field(default_factory=list)
    now_s: float = 0.0

    def alive(self, app: str) -> int:
        return self.targets.get(app, 0) + sum(name == app for until_s, name in self.draining if until_s >= self.now_s)

    def ask(self, app: str, claim: Claim) -> None:
        target = self.targets.get(app, 0)
        granted = self.ledger.grant(app, claim, target=target, now_s=self.now_s)
        self.targets[app] = granted
        drained_s = [self.now_s + self.random.uniform(0, self.longest_drain_s) for _ in range(target - granted)]
        self.draining += [(until_s, app) for until_s in drained_s]

    @property
    def in_use(self) -> int:
        return sum(units * self.alive(app) for app, units in self.units.items())


def most_in_use(seed: int, budget: int, *, has_directory: bool, may_return: bool) -> int:
    """Return the most accelerators that were ever held while four applications wanted this and that.

    Without a directory nobody sees draining replicas; they are gone within LINGER_S. With one they may take minutes.
    """
    random = Random(seed)  # noqa: S311 - examples
    apps = {app: (random.choice([1, 1, 2, 4]), random.randrange(3)) for app in "abcd"}
    drain_s = 120.0 if has_directory else LINGER_S
    cluster = Cluster(Ledger(budget), {app: units for app, (units, _) in apps.items()}, random, drain_s)
    shrunk_s = dict.fromkeys(apps, -1e9)
    most = 0
    for _ in range(120):
        cluster.now_s += random.choice([0.5, 1.0, 5.0, 20.0])
        for app, (units, priority) in apps.items():
            held, target = cluster.alive(app), cluster.targets.get(app, 0)
            wanted = random.randrange(9)
            if not may_return and (held > target or cluster.now_s - shrunk_s[app] <= LINGER_S):
                wanted = min(wanted, target)
            cluster.ask(app, Claim(units, priority, wanted=wanted, alive=held if has_directory else 0))
            if cluster.targets[app] < target:
                shrunk_s[app] = cluster.now_s
            most = max(most, cluster.in_use, cluster.ledger.in_use(cluster.now_s))
    return most


RETURNS = pytest.param(
    True,
    id="may-grow-while-they-drain",
    marks=pytest.mark.xfail(
        strict=True,
        reason="_Account.held takes the most of target, lingering and alive: replicas that drain are not counted beside those "
        "that were added meanwhile, so others get their accelerators",
    ),
)


@pytest.mark.parametrize("may_return", [pytest.param(False, id="grow-after-they-drained"), RETURNS])
@pytest.mark.parametrize("has_directory", [True, False], ids=["the-directory-names-them", "they-linger"])
def test_applications_together_never_hold_more_than_the_budget(*, has_directory: bool, may_return: bool) -> None:
    for seed in range(100):
        budget = 4 + seed % 20
        assert most_in_use(seed, budget, has_directory=has_directory, may_return=may_return) <= budget


@pytest.mark.xfail(strict=True, reason="2 of a's replicas drain while it has 5 again: 7 are held, the ledger counts 5")
@pytest.mark.parametrize("alive", [0, 5], ids=["they-linger", "the-directory-named-them-at-the-last-look"])
def test_replicas_that_drain_count_beside_those_that_were_added_since(alive: int) -> None:
    ledger = Ledger(7)
    ledger.grant("a", Claim(1, wanted=5, alive=alive), target=5, now_s=0.0)
    ledger.grant("a", Claim(1, wanted=3, alive=alive), target=5, now_s=1.0)
    assert ledger.grant("a", Claim(1, wanted=5, alive=alive), target=3, now_s=2.0) == 5
    assert ledger.grant("b", Claim(1, wanted=2), target=0, now_s=2.0) == 0
