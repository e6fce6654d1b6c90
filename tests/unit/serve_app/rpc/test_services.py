from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from deployments.documents import ServedDocuments
from deployments.limits import Limits
from deployments.llm.deployment import LLM
from deployments.names import ROLLOUTS_APP, ROUTER_APP, llm_app
from deployments.rollouts import Rollouts
from deployments.router import Router
from deployments.serving import ServedEmbedder, ServedRetriever
from serve_app.rpc.servicer import InferenceRpc
from serve_app.rpc.services import HEALTH, INFERENCE, add_health, add_inference

METHODS = {method.name: method for service in (INFERENCE, HEALTH) for method in service.methods}


def test_the_router_has_every_method_in_the_form_that_serve_wants() -> None:
    for name, method in METHODS.items():
        function = getattr(Router, name)
        assert inspect.isasyncgenfunction(function) == method.server_streaming, name
        assert list(inspect.signature(function).parameters) == ["self", "request", "grpc_context"], name


class Server:
    """Knows what was added to it."""

    def __init__(self) -> None:
        self.services: list[str] = []

    def add_generic_rpc_handlers(self, _: Any) -> None:
        pass

    def add_registered_method_handlers(self, name: str, _: Any) -> None:
        self.services.append(name)


@pytest.mark.parametrize(
    ("app", "services"),
    [
        (ROUTER_APP, [INFERENCE.full_name, HEALTH.full_name]),
        (None, [INFERENCE.full_name, HEALTH.full_name]),  # Serve's own proxy
        (ROLLOUTS_APP, []),
        (llm_app("chat", "stable"), []),
    ],
)
def test_only_routers_and_proxies_have_the_services(
    app: str | None, services: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = None if app is None else SimpleNamespace(app_name=app)
    context = SimpleNamespace(_get_internal_replica_context=lambda: replica)
    monkeypatch.setitem(sys.modules, "ray.serve.context", context)
    server = Server()
    add_inference(Mock(), server)
    add_health(Mock(), server)
    assert server.services == services


def test_only_the_router_answers_rpcs() -> None:
    # Serve puts the services on every application's first deployment and calls methods by their name, without any key.
    assert issubclass(Router, InferenceRpc)
    for deployment in (LLM, Limits, Rollouts, ServedDocuments, ServedEmbedder, ServedRetriever):
        assert [name for name in METHODS if hasattr(deployment, name)] == []
