"""LoRA in vLLM 0.29: adapters that come and go, and how requests find theirs.

Requests and answers name ``chat:legal`` whatever its version; the engine needs a name for each version, since it keeps
the KV cache of prompts by the adapter's name. vLLM's endpoints know both by one dict and one method of one object,
which every endpoint asks in the request's own task (or one that the request started, with its context): those two are
replaced, and look up the adapter of the request that is being served.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deployments.llm.engine import CURRENT_ADAPTER, LoadedAdapter

if TYPE_CHECKING:
    from vllm.v1.engine.async_llm import AsyncLLM


def attach_lora(app_state: Any, llm: AsyncLLM) -> VllmAdapters:
    """Return what loads adapters into the engine, and have its app answer requests by them.

    ``app_state``: the state of vLLM's app, after ``init_app_state``.
    """
    models = app_state.openai_serving_models
    adapters = VllmAdapters(llm, models)
    models.lora_requests = CurrentRequests(adapters, models.lora_requests)
    models.model_name = PublicNames(models.model_name)
    return adapters


class VllmAdapters:
    """Adapters of one engine; implements AdapterEngine."""

    def __init__(self, llm: AsyncLLM, models: Any) -> None:
        self._llm = llm
        self._models = models
        self._requests: dict[LoadedAdapter, Any] = {}
        self._ids: dict[str, int] = {}

    async def load(self, adapter: LoadedAdapter, folder: str) -> None:
        """Take an adapter into memory. Raises what vLLM says of weights that do not fit the model."""
        from vllm.lora.request import LoRARequest

        name = engine_name(adapter)
        # Requests of one step are told apart by the name, their weights by the number: one belongs to the other for good.
        number = self._ids.get(name) or self._models.lora_id_counter.inc(1)
        self._ids[name] = number
        request = LoRARequest(lora_name=name, lora_int_id=number, lora_path=folder)
        await self._llm.add_lora(request)
        self._requests[adapter] = request

    async def unload(self, adapter: LoadedAdapter) -> None:
        """Free an adapter that no request uses."""
        if (request := self._requests.pop(adapter, None)) is not None:
            await self._llm.remove_lora(request.lora_int_id)

    def current(self, name: object) -> Any:
        """Return vLLM's LoRARequest for the request that is being served, if that is what ``name`` calls; else None."""
        adapter = CURRENT_ADAPTER.get()
        return self._requests.get(adapter) if adapter is not None and adapter.public_name == name else None


def engine_name(adapter: LoadedAdapter) -> str:
    """Return what the engine calls an adapter: another name for whatever answers otherwise, or caches would be mixed up."""
    return f"{adapter.public_name}@{adapter.key.rpartition('/')[2]}-{adapter.digest}"


class CurrentRequests(dict[str, Any]):
    """In place of vLLM's dict of adapters by name: the current request's comes first; what vLLM was started with follows.

    It lists only the latter: replicas' own lists of models are nobody's business.
    """

    def __init__(self, adapters: VllmAdapters, static: Mapping[str, Any]) -> None:
        super().__init__(static)
        self._adapters = adapters

    def __contains__(self, name: object) -> bool:
        return self._adapters.current(name) is not None or super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        found = self._adapters.current(name)
        return super().__getitem__(name) if found is None else found


class PublicNames:
    """In place of ``OpenAIServingModels.model_name``: answers name what their request named."""

    def __init__(self, original: Any) -> None:
        self._original = original

    def __call__(self, lora_request: Any = None) -> str:
        """Return the model's name in an answer."""
        adapter = CURRENT_ADAPTER.get()
        name: str = self._original(lora_request) if adapter is None else adapter.public_name
        return name
