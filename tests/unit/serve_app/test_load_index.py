from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from serve_app.load_index import LoadIndex


def index(*loads: int) -> LoadIndex:
    made = LoadIndex()
    for load in loads:
        made.open(made.claim(load))
    return made


def test_the_least_loaded_follows_every_change() -> None:
    made = index(3, 1, 2)
    assert made.least(0) == 1
    made.shift(1, 4)
    assert made.least(0) == 2
    made.shift(0, -3)
    assert made.least(0) == 0
    made.close(0)
    assert made.least(0) == 2


def test_the_number_spreads_equals() -> None:
    assert [index(1, 1, 1, 2).least(number) for number in range(4)] == [0, 1, 2, 0]


def test_a_closed_seat_keeps_its_load_in_step() -> None:
    made = index(1, 5)
    made.close(0)
    made.shift(0, 7)
    made.open(0)
    assert (made.loads[0], made.least(0)) == (8, 1)


def test_a_seat_given_back_is_claimed_again() -> None:
    made = index(1, 5)
    made.close(0)
    made.free(0)
    assert [made.claim(7), made.claim(8)] == [0, 2]
    assert (made.loads, list(made.is_open)) == ([7, 5, 8], [0, 1, 0])


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, -1, 1, -6, 6])), max_size=80))
def test_it_always_agrees_with_a_count_of_all(steps: list[tuple[int, int]]) -> None:
    made = index(*range(10))
    opened = set(range(10))
    for seat, step in steps:
        if step:
            made.shift(seat, max(step, -made.loads[seat]))
        elif seat in opened:
            made.close(seat)
            opened.remove(seat)
        else:
            made.open(seat)
            opened.add(seat)
        assert set(made.opened) == opened
        assert [bool(made.is_open[i]) for i in range(10)] == [i in opened for i in range(10)]
        if opened:
            least = min(made.loads[i] for i in opened)
            equals = {i for i in opened if made.loads[i] == least}
            assert {made.least(n) for n in range(len(equals))} == equals
