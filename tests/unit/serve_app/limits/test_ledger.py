from __future__ import annotations

import pytest

from serve_app.limits.book import Book
from serve_app.limits.holding import GRANT_S, LIVELY_S
from serve_app.limits.ledger import SILENT_S, Ledger
from serve_app.limits.messages import Limit
from tests.unit.serve_app.limits.escrow import World, caller


def test_routers_share_a_limit() -> None:
    world = World(caller(requests_per_minute=30))
    assert world.burst(60) == 30
    world.wait(2)
    assert world.burst(4) == 1


def test_a_minute_later_all_of_the_limit_is_there_again() -> None:
    world = World(caller(requests_per_minute=30))
    world.burst(60)
    world.wait(60)
    assert world.burst(60) == 30


def test_a_grant_is_more_than_one_request_so_that_most_requests_ask_nobody() -> None:
    world = World(caller(requests_per_minute=6000))
    before = world.books[0]._number
    for _ in range(100):
        assert world.request(0) is not None
    assert world.books[0]._number == before + 1


def test_what_lies_unused_goes_back_and_others_get_it() -> None:
    world = World(caller(requests_per_minute=6000), routers=2)
    world.request(0)
    held = world.books[0].holding(world.who)
    assert held.requests == 99
    world.wait(LIVELY_S)
    world.exchange(0)
    assert held.requests == 0
    assert world.request(1) is not None
    assert world.books[1].holding(world.who).last.requests_left == 6000 - 100  # type: ignore[union-attr]


def test_a_key_in_use_has_its_next_requests_at_hand() -> None:
    world = World(caller(requests_per_minute=600, concurrent_requests=640))
    world.request(0)
    world.release(0)
    for _ in range(3):
        world.wait(1)
        world.exchange(0)
    before = world.books[0]._number
    assert [world.request(0) is not None for _ in range(4)] == [True] * 4
    assert world.books[0]._number == before


@pytest.mark.parametrize("limits", [{"requests_per_minute": 200}, {"concurrent_requests": 32}])
def test_of_a_small_limit_nothing_lies_at_hand(limits: dict[str, int]) -> None:
    world = World(caller(**limits))
    world.request(0)
    world.release(0)
    for _ in range(6):
        world.wait(1)
        world.exchange(0)
    held = world.books[0].holding(world.who)
    assert (held.requests, held.slots) == (0, 0)


def test_a_return_that_is_lost_is_used_by_nobody() -> None:
    world = World(caller(requests_per_minute=600))
    world.request(0)
    world.wait(1)
    world.exchange(0, outcome="lost")
    assert world.books[0].holding(world.who).requests == 0
    assert world.books[0].try_admit(world.who) is None


def test_a_grant_that_has_become_old_is_not_used() -> None:
    world = World(caller(requests_per_minute=600))
    world.request(0)
    assert world.books[0].try_admit(world.who) is not None
    world.wait(GRANT_S)
    assert world.books[0].try_admit(world.who) is None


def test_a_message_that_comes_late_changes_nothing() -> None:
    world = World(caller(concurrent_requests=1))
    assert world.request(0) is not None
    world.release(0)
    world.wait(1)
    world.exchange(0, outcome="late")  # says that nothing is held any more
    assert world.request(0) is not None
    world.deliver(0)
    assert world.request(1) is None
    assert world.is_open() == 1


def test_places_come_back_when_requests_end() -> None:
    world = World(caller(concurrent_requests=2))
    assert world.burst(4) == 2
    world.release(0)
    assert world.request(0) is not None  # it still holds the place
    world.release(0)
    world.wait(1)
    world.exchange(0)
    assert world.request(1) is not None


def test_the_places_of_a_dead_router_come_back_after_five_seconds() -> None:
    world = World(caller(concurrent_requests=2))
    assert (world.request(0), world.request(0)) != (None, None)
    world.open[0] = []  # it died: nothing is released, and nothing is heard of it
    world.wait(SILENT_S - 0.1)
    world.exchange(1)
    assert world.request(1) is None
    world.wait(0.1)
    assert world.request(1) is not None


def test_a_router_without_a_key_of_limits_is_counted_too() -> None:
    world = World(caller(requests_per_minute=30), routers=4)
    world.request(0)
    assert world.books[0]._routers == 4


def test_the_refusal_names_the_limit_and_when_to_come_again() -> None:
    world = World(caller(requests_per_minute=30, tokens_per_minute=600))
    world.burst(60)
    error = world.books[0].refusal(world.who)
    assert error is not None
    assert error.message.startswith("this API key's limit of 30 requests per minute is reached; try again in 2.0 s")
    assert error.retry_after_s == pytest.approx(2)
    assert dict(error.headers) == {
        "x-ratelimit-limit-requests": "30",
        "x-ratelimit-remaining-requests": "0",
        "x-ratelimit-reset-requests": "1m0s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "600",
        "x-ratelimit-reset-tokens": "0ms",
    }


def test_tokens_are_charged_afterwards_and_their_debt_is_paid() -> None:
    world = World(caller(tokens_per_minute=600))
    permit = world.request(0)
    assert permit is not None
    assert permit.counts_tokens
    permit.charge(900)
    assert world.request(0) is None
    world.exchange(0)
    assert world.request(1) is None  # the other Router hears of the debt of 300: 30 s
    world.wait(30)
    assert world.request(1) is None
    world.wait(0.2)
    assert world.request(1) is not None


def test_a_charge_counts_once_however_often_it_is_reported() -> None:
    world = World(caller(tokens_per_minute=600))
    permit = world.request(0)
    assert permit is not None
    permit.charge(100)
    for outcome in ("lost", "unanswered", "unanswered", "ok", "ok"):
        world.exchange(0, outcome=outcome)
    assert world.books[0].holding(world.who).last.tokens_left == 500  # type: ignore[union-attr]


def test_the_overshoot_of_tokens_is_what_was_open_when_the_limit_was_reached() -> None:
    world = World(caller(tokens_per_minute=600))
    charged = 0
    for _ in range(100):
        permit = world.request(0)
        if permit is None:
            break
        permit.charge(250)
        charged += 250
    assert charged == 750


def test_what_is_left_is_told_to_a_client_at_every_request() -> None:
    world = World(caller(requests_per_minute=30, tokens_per_minute=600))
    permit = world.request(0)
    assert permit is not None
    assert dict(permit.headers) == {
        "x-ratelimit-limit-requests": "30",
        "x-ratelimit-remaining-requests": "29",
        "x-ratelimit-reset-requests": "2s",
        "x-ratelimit-limit-tokens": "600",
        "x-ratelimit-remaining-tokens": "600",
        "x-ratelimit-reset-tokens": "0ms",
    }


def test_a_changed_limit_holds_from_the_next_request() -> None:
    world = World(caller(requests_per_minute=30))
    world.burst(60)
    world.who = caller(requests_per_minute=40)
    assert world.burst(60) == 10


def test_a_ledger_that_has_just_started_grants_nothing_until_all_routers_have_spoken() -> None:
    world = World(caller(requests_per_minute=30))
    world.ledger = Ledger(epoch="two", clock=world.clock)
    assert world.request(0) is None
    assert world.books[0].is_alone


def test_a_restarted_ledger_takes_what_it_cannot_know_as_used() -> None:
    world = World(caller(requests_per_minute=30))
    world.burst(60)
    world.ledger = Ledger(epoch="two", clock=world.clock)
    world.exchange(0)
    world.exchange(1)
    world.wait(SILENT_S)
    world.exchange(0)
    world.exchange(1)
    assert not world.books[0].is_alone
    assert world.burst(60) == int(SILENT_S * 30 / 60)


def test_a_restarted_ledger_hears_which_requests_are_open() -> None:
    world = World(caller(concurrent_requests=4))
    assert world.burst(3) == 3
    world.ledger = Ledger(epoch="two", clock=world.clock)
    for seconds in (0.0, SILENT_S - 1, 1.0):
        world.wait(seconds)
        world.exchange(0)
        world.exchange(1)
    assert world.burst(4) == 1


def test_what_was_admitted_alone_is_counted_by_the_ledger_that_comes_back() -> None:
    world = World(caller(requests_per_minute=60))
    assert world.burst(60) == 60
    for book in world.books:
        book.lost("gone")
    world.wait(4)
    assert world.burst(10) == 4
    for i in range(2):
        world.exchange(i)
    assert world.burst(10) == 0


def test_a_router_that_never_heard_of_the_ledger_says_so() -> None:
    world = World(caller(requests_per_minute=60))
    book = Book("new", clock=world.clock)
    book.lost("gone")
    error = book.refusal(world.who)
    assert error is not None
    assert (book.try_admit(world.who), error.kind, error.retry_after_s) == (None, "unavailable", 1)


def test_alone_a_router_uses_its_places_and_its_share_of_those_that_were_free() -> None:
    world = World(caller(concurrent_requests=8))
    assert world.request(0) is not None
    for book in world.books:
        book.lost("gone")
    assert sum(world.request(0) is not None for _ in range(10)) == 3
    assert world.is_open() == 4


def test_alone_tokens_are_shared_as_well() -> None:
    world = World(caller(tokens_per_minute=600))
    for book in world.books:
        book.lost("gone")
    assert world.request(0) is None
    error = world.books[0].refusal(world.who)
    assert error is not None
    assert "tokens per minute" in error.message
    world.wait(1)
    permit = world.request(0)
    assert permit is not None
    permit.charge(15)  # of 5 that had flowed in: 10 short, at 5 a second
    world.wait(2)
    assert world.request(0) is None
    world.wait(0.1)
    assert world.request(0) is not None


def test_every_limit_has_a_name_in_the_order_of_the_quota() -> None:
    assert list(Limit) == [Limit.REQUESTS, Limit.TOKENS, Limit.CONCURRENCY]
