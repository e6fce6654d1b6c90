from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from deployments.stores.lance_commits import TRIES, committed, created
from serve_app.errors import Unavailable

CONFLICT = RuntimeError("lance error: Retryable commit conflict for version 4: This CreateIndex transaction was preempted")
FULL = RuntimeError("lance error: LanceError(IO): Unable to write: No space left on device (os error 28), /src/commit.rs:9")


@dataclass
class Table:
    """Fails with what ``errors`` hold first."""

    errors: list[Exception]
    name: str = "docs"
    calls: list[str] = field(default_factory=list)

    async def write(self) -> str:
        self.calls.append("write")
        if self.errors:
            raise self.errors.pop(0)
        return "done"

    async def checkout_latest(self) -> None:
        self.calls.append("checkout_latest")


async def commit(table: Table) -> str:
    return await committed(table, table.write)  # type: ignore[arg-type]


async def test_a_write_that_another_one_came_before_is_begun_again_on_the_newest_version() -> None:
    table = Table([CONFLICT, CONFLICT])
    assert await commit(table) == "done"
    assert table.calls == ["write", "checkout_latest", "write", "checkout_latest", "write"]


async def test_a_write_that_always_comes_second_says_that_there_are_too_many() -> None:
    table = Table([CONFLICT] * TRIES)
    with pytest.raises(Unavailable, match="'docs' is written to by too many at once; run fewer"):
        await commit(table)
    assert table.calls.count("write") == TRIES


@pytest.mark.parametrize(
    "error", [FULL, OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded")], ids=["lance", "os", "quota"]
)
async def test_a_full_disk_is_named_with_what_to_do(error: Exception) -> None:
    with pytest.raises(
        Unavailable, match=r"'docs' cannot be written: the disk is full.*free space where vector_store\.uri is"
    ) as full:
        await commit(Table([error]))
    assert "/src" not in full.value.message


async def test_a_disk_that_refuses_says_why() -> None:
    table = Table([RuntimeError("lance error: Permission denied (os error 13)")])
    with pytest.raises(Unavailable, match=r"'docs' cannot be written: Permission denied; vector_store\.uri"):
        await created("docs", table.write)


@pytest.mark.parametrize("before", [0, TRIES - 1], ids=["first-try", "last-try"])
async def test_any_other_fault_is_left_as_it_is(before: int) -> None:
    with pytest.raises(RuntimeError, match="a bug"):
        await commit(Table([*[CONFLICT] * before, RuntimeError("a bug")]))
