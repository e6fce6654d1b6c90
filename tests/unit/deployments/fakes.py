"""Fakes for deployments: a store of state that can be away."""

from __future__ import annotations


class MemoryState:
    """Values in memory. While ``is_away`` it fails."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.is_away = False

    async def put(self, key: str, data: bytes) -> None:
        self._answer()
        self.values[key] = data

    async def get(self, key: str) -> bytes | None:
        self._answer()
        return self.values.get(key)

    def _answer(self) -> None:
        if self.is_away:
            raise OSError("the store is away")
