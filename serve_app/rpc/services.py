"""The gRPC services, as functions that Serve calls by import path to put them on its servers."""

from __future__ import annotations

import operator
import sys
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health_pb2

from serve_app.protos.manta.v1 import inference_pb2

INFERENCE = inference_pb2.DESCRIPTOR.services_by_name["Inference"]
CLIENTS_APP = "router"  # as ``deployments.names`` calls it, which is above us
HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"]


def add_inference(servicer: Any, server: Any) -> None:
    """Add manta.v1.Inference to a server."""
    _add(INFERENCE, servicer, server)


def add_health(servicer: Any, server: Any) -> None:
    """Add grpc.health.v1.Health to a server."""
    _add(HEALTH, servicer, server)


def _serves_clients() -> bool:
    """Whether this process may answer clients.

    Serve opens a gRPC port for every application. On those of others than the Router it would call methods by the RPC's
    name without any key, and tell the names of those that exist.
    """
    context: Any = sys.modules.get("ray.serve.context")  # where there is none, there is no Serve
    replica = context and context._get_internal_replica_context()
    return replica is None or replica.app_name == CLIENTS_APP  # None: a proxy, which passes calls on


def _add(service: ServiceDescriptor, servicer: Any, server: Any) -> None:
    if not _serves_clients():
        return
    # The generated functions parse requests before our code runs: a message that is too large or no message at all would
    # then be answered by gRPC itself, without our codes and details.
    handlers = {}
    for method in service.methods:
        kind = "unary_stream_rpc_method_handler" if method.server_streaming else "unary_unary_rpc_method_handler"
        serve = getattr(servicer, method.name)
        handlers[method.name] = getattr(grpc, kind)(serve, response_serializer=operator.methodcaller("SerializeToString"))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    server.add_registered_method_handlers(service.full_name, handlers)
