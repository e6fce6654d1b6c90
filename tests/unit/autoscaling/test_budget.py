from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, pairwise
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoscaling.budget import LINGER_S, TURN_S, Claim, Ledger, allocate

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
@example(wanted=[20, 1], budget=19)
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
        pytest.param(
            {"a": Claim(1, wanted=1, held_s=9), "b": Claim(1, wanted=1, held_s=8)}, 1, {"a": 0, "b": 1}, id="had-none"
        ),
        pytest.param({"a": Claim(1, wanted=1, held_s=0), "b": Claim(1, wanted=1)}, 1, {"a": 0, "b": 1}, id="never-had-any"),
        pytest.param({"a": Claim(1, wanted=1), "b": Claim(1, wanted=1)}, 1, {"a": 1, "b": 0}, id="by-name-in-the-end"),
        pytest.param(
            {"a": Claim(1, wanted=4, held_s=0), "b": Claim(1, wanted=8, held_s=9)}, 3, {"a": 1, "b": 2}, id="share-before-turn"
        ),
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


def test_replicas_that_the_directory_names_as_draining_count_for_as_long_as_it_does() -> None:
    ledger = Ledger(4)
    ledger.grant("low", Claim(1, 1, wanted=0), target=4, now_s=0.0)
    for now_s in (1.0, 100.0, 1000.0):
        ledger.grant("low", Claim(1, 1, wanted=0, draining=3), target=0, now_s=now_s)
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
    ledger.grant("old", Claim(1, wanted=3), target=3, now_s=0.0)
    used = []
    for now_s, draining in ((1.0, 0), (1.1 + LINGER_S, 2), (60.0, 2), (61.0, 0), (62.0, 4)):
        ledger.keep(["new"], {"old": draining}, now_s=now_s)
        used.append(ledger.in_use(now_s))
    assert used == [3, 2, 2, 0, 0]


def test_an_application_that_stays_is_kept_as_it_is() -> None:
    ledger = Ledger(4)
    ledger.grant("a", Claim(1, wanted=3), target=0, now_s=0.0)
    ledger.keep(["a"], {}, now_s=1.0)
    assert ledger.in_use(1.0) == 3


@dataclass(frozen=True)
class Leaver:
    """A replica on its way out. The directory has it as draining a while after it was asked to go, until it is gone."""

    app: str
    named_s: float
    gone_s: float


@dataclass
class Cluster:
    """Applications on real accelerators: a replica that was asked to go holds its own until it has drained."""

    ledger: Ledger
    units: dict[str, int]
    random: Random
    targets: dict[str, int]
    leavers: list[Leaver] = field(default_factory=list)
    now_s: float = 0.0

    def draining(self) -> dict[str, int]:
        return dict(Counter(each.app for each in self.leavers if each.named_s <= self.now_s < each.gone_s))

    def ask(self, app: str, priority: int, wanted: int) -> None:
        """Let an application look, as the desk does."""
        draining, target = self.draining(), self.targets[app]
        claim = Claim(self.units[app], priority, wanted=wanted, draining=draining.get(app, 0))
        self.ledger.keep(self.targets, draining, now_s=self.now_s)
        self.targets[app] = self.ledger.grant(app, claim, target=target, now_s=self.now_s)
        self.leave(app, target - self.targets[app])

    def leave(self, app: str, count: int) -> None:
        """Ask replicas to go: some are gone at once, others take minutes."""
        for _ in range(count):
            named_s = self.now_s + self.random.uniform(0, LINGER_S - LONGEST_STEP_S)
            gone_s = self.now_s + self.random.choice([0.0, 5.0, LINGER_S, 30.0, 300.0]) * self.random.random()
            self.leavers.append(Leaver(app, named_s, gone_s))

    @property
    def in_use(self) -> int:
        drain = sum(self.units[each.app] for each in self.leavers if self.now_s < each.gone_s)
        return drain + sum(self.units[app] * count for app, count in self.targets.items())


LONGEST_STEP_S = 2.0


def course(seed: int, budget: int) -> Iterator[Cluster]:
    """Let four applications want this and that, come and go, for minutes, each looking about once a second."""
    random = Random(seed)  # noqa: S311 - examples
    apps = {app: (random.choice([1, 1, 2, 4]), random.randrange(3)) for app in "abcd"}
    cluster = Cluster(Ledger(budget), {app: units for app, (units, _) in apps.items()}, random, dict.fromkeys(apps, 0))
    wanted = dict.fromkeys(apps, 0)
    for _ in range(250):
        cluster.now_s += random.choice([0.5, 1.0, LONGEST_STEP_S])
        for app in random.sample(sorted(apps), len(apps)):
            if random.random() < 0.1:
                wanted[app] = random.randrange(9)
            if app not in cluster.targets and random.random() < 0.1:
                cluster.targets[app] = 0
            elif random.random() < 0.005:
                cluster.leave(app, cluster.targets.pop(app, 0))
            if app in cluster.targets:
                cluster.ask(app, apps[app][1], wanted[app])
                yield cluster


@pytest.mark.parametrize("seed", range(20))
def test_applications_together_never_hold_more_than_the_budget(seed: int) -> None:
    budget = 4 + seed
    states = [(cluster.in_use, cluster.ledger.in_use(cluster.now_s)) for cluster in course(seed, budget)]
    assert max(used for used, _ in states) <= budget
    assert all(used <= counted for used, counted in states)
    assert any(used == budget for used, _ in states)


def settled(wishes: Sequence[dict[str, Claim]], budget: int, *, round_s: float) -> dict[str, int]:
    """Return the targets after applications have wished this and that, a round each."""
    ledger, targets = Ledger(budget), dict.fromkeys("abcdef", 0)
    for round_, wish in enumerate(wishes):
        ledger.keep(wish, {}, now_s=round_s * round_)
        for app, claim in wish.items():
            targets[app] = ledger.grant(app, claim, target=targets[app], now_s=round_s * round_)
    return {app: targets[app] for app in wishes[-1]}


def modest(claims: dict[str, Claim]) -> dict[str, Claim]:
    return {app: replace(claim, least=0) for app, claim in claims.items()}


@given(claims=claims_of(), before=claims_of(), budget=BUDGETS)
def test_once_nobody_changes_its_mind_priorities_have_their_shares_soon(
    claims: dict[str, Claim], before: dict[str, Claim], budget: int
) -> None:
    claims = {app: replace(claim, priority=ord(app)) for app, claim in modest(claims).items()}
    before = {app: replace(claim, priority=ord(app)) for app, claim in before.items()}
    found = settled([before, claims, claims, claims], budget, round_s=LINGER_S + 1)
    assert found == allocate(claims, budget)


def turns_of(claims: dict[str, Claim], budget: int) -> list[dict[str, int]]:
    """Return what is given for every order, one app before another, of those whose turn it may be."""
    apps = list(claims)
    orders = [apps[i:] + apps[:i] for i in range(len(apps))]
    orders += [order[::-1] for order in orders]
    return [
        allocate({app: replace(claim, held_s=order.index(app)) for app, claim in claims.items()}, budget) for order in orders
    ]


@settings(max_examples=40)
@given(claims=claims_of(), before=claims_of(), budget=BUDGETS)
def test_once_nobody_changes_its_mind_everybody_has_its_share_after_a_turn(
    claims: dict[str, Claim], before: dict[str, Claim], budget: int
) -> None:
    claims = modest(claims)
    possible = turns_of(claims, budget)
    found = settled([before, *[claims] * 5], budget, round_s=TURN_S + LINGER_S)
    if all(each == possible[0] for each in possible):  # it is nobody's turn
        assert found == allocate(claims, budget)
    assert cost(claims, found) <= budget


def test_of_two_equals_over_a_lowered_budget_one_keeps_its_replica() -> None:
    ledger, one = Ledger(2), Claim(1, wanted=1)
    for app in "ab":
        assert ledger.grant(app, one, target=1, now_s=0.0) == 1
    ledger.budget = 1
    kept = [ledger.grant(app, one, target=1, now_s=1.0 + number / 10) for number, app in enumerate("ab")]
    assert sum(kept) == 1


def owners(hours: float, wants: Callable[[str, int], int], *, apps: str, budget: int) -> list[dict[str, int]]:
    """Return the targets of equal applications at every second."""
    ledger, targets, made = Ledger(budget), dict.fromkeys(apps, 0), []
    for now_s in range(int(hours * 3600)):
        for app in apps:
            claim = Claim(1, wanted=wants(app, now_s))
            targets[app] = ledger.grant(app, claim, target=targets[app], now_s=now_s)
        made.append(dict(targets))
        assert sum(targets.values()) <= budget
    return made


def moves(made: list[dict[str, int]], app: str) -> list[int]:
    """Return the seconds at which an application's number changes."""
    return [at for at, (old, new) in enumerate(pairwise(made), 1) if old[app] != new[app]]


@pytest.mark.parametrize("apps", ["ab", "abc"])
def test_equals_that_all_want_the_only_accelerator_take_turns(apps: str) -> None:
    made = owners(0.8, lambda *_: 1, apps=apps, budget=1)
    held_s = {app: sum(each[app] for each in made) for app in apps}
    assert min(held_s.values()) > 0.6 * len(made) / len(apps)
    owner = [next((app for app in apps if each[app]), None) for each in made]
    lengths_s = [len(list(seconds)) for app, seconds in groupby(owner) if app]
    assert min(lengths_s[:-1]) >= TURN_S


def test_a_turn_goes_to_who_has_waited_longest() -> None:
    made = owners(0.9, lambda *_: 1, apps="abcd", budget=1)
    order = [app for each in made for app in each if each[app]]
    turns = [app for app, _ in groupby(order)]
    assert turns == list("abcdabcdabc")


@pytest.mark.parametrize("seed", range(5))
def test_equal_priorities_with_bursty_wishes_make_few_changes(seed: int) -> None:
    random = Random(seed)  # noqa: S311 - examples
    bursts = {app: [random.choice([0, 2, 4, 8]) for _ in range(90)] for app in "bc"}

    def wants(app: str, now_s: int) -> int:
        return 8 if app == "a" else bursts[app][now_s // 20]  # a wish lasts 20 s: less than a replica takes to start

    made = owners(0.5, wants, apps="abc", budget=8)
    taken = [at for at in moves(made, "a") if made[at]["a"] < made[at - 1]["a"]]
    assert all(later - sooner >= TURN_S for sooner, later in pairwise(taken))


def test_a_wish_that_is_over_before_a_turn_is_takes_nothing_from_an_equal() -> None:
    made = owners(0.4, lambda app, now_s: 8 if app == "a" else 4 * (now_s // 100 % 2), apps="ab", budget=8)
    assert made[-1]["a"] == 8
    assert not moves(made, "a")


def test_a_wish_that_lasts_gets_its_share_from_an_equal_after_a_turn() -> None:
    made = owners(0.2, lambda app, now_s: 8 if app == "a" or now_s >= 100 else 0, apps="ab", budget=8)
    assert moves(made, "a") == [100 + int(TURN_S)] or moves(made, "a") == [101 + int(TURN_S)]
    assert made[-1] == {"a": 4, "b": 4}


def test_a_higher_priority_waits_for_no_turn() -> None:
    ledger = Ledger(4)
    ledger.grant("low", Claim(1, 1, wanted=4), target=4, now_s=0.0)
    ledger.grant("equal", Claim(1, 1, wanted=4), target=0, now_s=0.0)
    ledger.grant("high", Claim(1, 9, wanted=3), target=0, now_s=1.0)
    assert ledger.grant("low", Claim(1, 1, wanted=4), target=4, now_s=2.0) == 1


def test_replicas_that_the_directory_names_count_though_nobody_asked_for_them() -> None:
    ledger = Ledger(6)
    assert ledger.grant("a", Claim(1, wanted=1, alive=4), target=1, now_s=0.0) == 1
    assert ledger.in_use(0.0) == 4
    assert ledger.grant("b", Claim(1, wanted=6), target=0, now_s=0.0) == 2
    ledger.grant("a", Claim(1, wanted=1, alive=1), target=1, now_s=1.0)
    assert ledger.grant("b", Claim(1, wanted=6), target=2, now_s=1.0) == 5


def test_what_is_alive_and_what_was_asked_for_are_the_same_replicas() -> None:
    ledger = Ledger(6)
    assert ledger.grant("a", Claim(1, wanted=5, alive=3, draining=1), target=2, now_s=0.0) == 5
    assert ledger.in_use(0.0) == 6


def test_an_application_that_nobody_asks_about_holds_what_drains_not_what_lives() -> None:
    ledger = Ledger(6)
    ledger.grant("old", Claim(1, wanted=3, alive=4), target=3, now_s=0.0)
    ledger.keep([], {"old": 1}, now_s=LINGER_S)
    assert ledger.in_use(LINGER_S) == 4  # asked to go just now, beside what drains
    ledger.keep([], {}, now_s=2 * LINGER_S + 1)
    assert not ledger.knows("old")


@pytest.mark.parametrize("draining", [0, 2], ids=["they-linger", "the-directory-names-them-since-a-look"])
def test_replicas_that_drain_count_beside_those_that_were_added_since(draining: int) -> None:
    ledger, a = Ledger(9), Claim(1, wanted=5)
    now_s = 2.0 + draining * LINGER_S
    ledger.grant("a", a, target=5, now_s=0.0)
    ledger.grant("a", replace(a, wanted=3), target=5, now_s=1.0)
    assert ledger.grant("a", replace(a, draining=draining), target=3, now_s=now_s) == 5
    assert ledger.grant("b", Claim(1, wanted=5), target=0, now_s=now_s) == 2
