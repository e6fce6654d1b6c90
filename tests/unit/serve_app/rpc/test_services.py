from __future__ import annotations

import inspect

from deployments.documents import ServedDocuments
from deployments.limits import Limits
from deployments.llm.deployment import LLM
from deployments.rollouts import Rollouts
from deployments.router import Router
from deployments.serving import ServedEmbedder, ServedRetriever
from serve_app.rpc.servicer import InferenceRpc
from serve_app.rpc.services import HEALTH, INFERENCE

METHODS = {method.name: method for service in (INFERENCE, HEALTH) for method in service.methods}


def test_the_router_has_every_method_in_the_form_that_serve_wants() -> None:
    for name, method in METHODS.items():
        function = getattr(Router, name)
        assert inspect.isasyncgenfunction(function) == method.server_streaming, name
        assert list(inspect.signature(function).parameters) == ["self", "request", "grpc_context"], name


def test_only_the_router_answers_rpcs() -> None:
    # Serve puts the services on every application's first deployment and calls methods by their name, without any key.
    assert issubclass(Router, InferenceRpc)
    for deployment in (LLM, Limits, Rollouts, ServedDocuments, ServedEmbedder, ServedRetriever):
        assert [name for name in METHODS if hasattr(deployment, name)] == []
