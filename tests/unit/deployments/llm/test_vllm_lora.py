"""How vLLM's endpoints find a request's adapter: over a stand-in for its OpenAIServingModels."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from deployments.llm.engine import CURRENT_ADAPTER, LoadedAdapter
from deployments.llm.vllm_lora import VllmAdapters, attach_lora, engine_name

FIRST = LoadedAdapter("legal/v1", "chat:legal", "r1-f1")
SECOND = LoadedAdapter("legal/v2", "chat:legal", "r2-f1")


@dataclass
class FakeRequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@pytest.fixture(autouse=True)
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the one class in place that is imported."""
    module = ModuleType("vllm.lora.request")
    module.LoRARequest = FakeRequest  # type: ignore[attr-defined]
    for name in ("vllm", "vllm.lora"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", module)


@dataclass
class FakeLlm:
    said: list[str] = field(default_factory=list)

    async def add_lora(self, request: FakeRequest) -> bool:
        if request.lora_path == "/broken":
            raise ValueError("does not fit")
        self.said.append(f"+{request.lora_int_id} {request.lora_name} {request.lora_path}")
        return True

    async def remove_lora(self, number: int) -> bool:
        self.said.append(f"-{number}")
        return True


class FakeModels:
    """As much of vLLM's object as its endpoints ask."""

    def __init__(self) -> None:
        self.lora_requests: dict[str, Any] = {"static": "from the start"}
        self.lora_id_counter = SimpleNamespace(inc=self._next)
        self._count = 1

    def _next(self, by: int) -> int:
        self._count += by
        return self._count

    def model_name(self, lora_request: Any = None) -> str:
        return lora_request.lora_name if lora_request is not None else "chat"

    def found(self, name: str) -> Any:
        """Look up as vLLM's endpoints do."""
        return self.lora_requests[name] if name in self.lora_requests else None  # noqa: SIM401  (as they do)


def attached() -> tuple[VllmAdapters, FakeModels, FakeLlm]:
    models, llm = FakeModels(), FakeLlm()
    state = SimpleNamespace(openai_serving_models=models)
    return attach_lora(state, llm), models, llm


def seen(models: FakeModels, current: LoadedAdapter | None, name: str = "chat:legal") -> tuple[str | None, str]:
    """Return the engine's name of the adapter that a request finds, and what its answer calls the model."""
    token = CURRENT_ADAPTER.set(current)
    try:
        found = models.found(name)
        return getattr(found, "lora_name", found), models.model_name(found if hasattr(found, "lora_name") else None)
    finally:
        CURRENT_ADAPTER.reset(token)


async def test_a_request_finds_its_own_version_and_is_answered_by_the_public_name() -> None:
    adapters, models, _ = attached()
    await adapters.load(FIRST, "/one")
    await adapters.load(SECOND, "/two")
    assert seen(models, FIRST) == ("chat:legal@v1-r1-f1", "chat:legal")
    assert seen(models, SECOND) == ("chat:legal@v2-r2-f1", "chat:legal")


async def test_without_an_adapter_everything_is_as_it_was() -> None:
    adapters, models, _ = attached()
    await adapters.load(FIRST, "/one")
    assert seen(models, None) == (None, "chat")
    assert seen(models, None, "static") == ("from the start", "chat")
    assert seen(models, None, "chat") == (None, "chat")
    assert list(models.lora_requests.values()) == ["from the start"]


async def test_the_model_itself_is_no_adapter_whatever_the_request_is_for() -> None:
    adapters, models, _ = attached()
    await adapters.load(FIRST, "/one")
    assert seen(models, FIRST, "chat")[0] is None


async def test_what_has_gone_is_not_found() -> None:
    adapters, models, llm = attached()
    await adapters.load(FIRST, "/one")
    await adapters.unload(FIRST)
    await adapters.unload(FIRST)
    assert seen(models, FIRST)[0] is None
    assert llm.said == ["+2 chat:legal@v1-r1-f1 /one", "-2"]


async def test_one_that_comes_back_has_its_number_and_another_has_a_new_one() -> None:
    adapters, _, llm = attached()
    for adapter in (FIRST, SECOND, FIRST, LoadedAdapter("legal/v1", "chat:legal", "r1-f2")):
        await adapters.load(adapter, "/one")
    assert [word.split()[0] for word in llm.said] == ["+2", "+3", "+2", "+4"]


async def test_weights_that_do_not_fit_are_not_kept() -> None:
    adapters, models, _ = attached()
    with pytest.raises(ValueError, match="does not fit"):
        await adapters.load(FIRST, "/broken")
    assert seen(models, FIRST)[0] is None


def test_whatever_answers_otherwise_has_another_name() -> None:
    files = LoadedAdapter("legal/v1", "chat:legal", "r1-f2")
    other = LoadedAdapter("legal/v1", "code:legal", "r1-f1")
    assert len({engine_name(adapter) for adapter in (FIRST, SECOND, files, other)}) == 4
