from __future__ import annotations

from loadtests.tally import MOST_MESSAGES, Cell, Tally
from tests.unit.loadtests.fakes import run_of, scenario, stream

STEPS = {"mode": "open", "shape": {"kind": "step", "levels": [1, 2]}}


def seen(*at_s: float) -> Tally:
    exchanges = [stream(at, variant=("chat", "stable"), message="odd") for at in at_s]
    return Tally.from_json(run_of(scenario(load=STEPS), exchanges)["tally"])


def test_a_document_gives_the_tally_back() -> None:
    made = seen(-1, 0, 6)
    assert Tally.from_json(made.to_json()).to_json() == made.to_json()


def test_the_sum_of_the_workers_is_the_run() -> None:
    together, apart = seen(-1, 0, 3, 6, 6.5), seen(-1, 3)
    apart.merge(seen(0, 6, 6.5))
    mine, theirs = together.to_json(), apart.to_json()
    assert mine["slots"] == theirs["slots"]
    assert mine["shares"] == theirs["shares"]
    assert (mine["warmup"], mine["entries"]["chat"]["totals"]) == (theirs["warmup"], theirs["entries"]["chat"]["totals"])


def test_messages_are_bounded() -> None:
    one, other = Cell(), Cell()
    for number in range(3 * MOST_MESSAGES):
        one.say(f"message {number}")
        other.say(f"other {number}")
    one.say("message 0")
    one.merge(other)
    assert (len(one.messages), one.messages["message 0"]) == (MOST_MESSAGES, 2)
