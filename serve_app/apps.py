"""PlatformConfig -> ServeDeploySchema, by pure functions; and the builders that Serve calls by import path.

What may change without a restart (replica counts, autoscaling bounds, the platform's document) is written as deployment
options or user_config. Only what a replica is made of goes into ``args``, because Ray hashes them into the version.

Both hold the operator's document as it was written, without defaults: replicas validate it again and fill them in. So the
Helm chart, which knows no defaults of ours, renders the same (tests/chart).
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

from deployments.declared import KEY as PLATFORM
from deployments.llm.placement import actor_options, placement_of
from deployments.names import DOCUMENTS_APP, LIMITS_APP, RETRIEVER_APP, ROLLOUTS_APP, ROUTER_APP, embedder_app, llm_app
from serve_app.config import (
    Config,
    EmbedderConfig,
    ModelConfig,
    PlatformConfig,
    RetrieverConfig,
    RouterConfig,
    VariantConfig,
    VectorStoresConfig,
)
from serve_app.config_vector_stores import documents_uri
from serve_app.errors import OpenToEverybody
from serve_app.rollout.document import NOT_IN_ARGS
from serve_app.serve_settings import ROUTER_QUEUE, STAGE_CALLS
from serve_app.settings import LOCAL_ONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ray.serve import Application, Deployment

Json = dict[str, Any]
Stage = VariantConfig | EmbedderConfig | RetrieverConfig | RouterConfig

_HEALTH: Json = {"health_check_period_s": 10.0, "health_check_timeout_s": 120.0}
# Serve's default, a second event loop for our code, costs two tasks and a thread switch per token of a stream; what the
# Router does there is short. Read when the replica's process starts.
_ROUTER_ENV = {"RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0"}
_COUNTS = frozenset({"replicas", "autoscaling", "max_replicas_per_node"})  # of replicas: no part of what one is made of
_MANY = 100_000  # requests that Serve may send at once: our own limits are the ones that count
_GRPC_SERVICES = ["serve_app.rpc.services:add_inference", "serve_app.rpc.services:add_health"]
_GRPC_MESSAGE_BYTES = 64 * 2**20  # both ways: vectors are larger than their texts


def build_schema(
    config: PlatformConfig,
    *,
    http_port: int = 8000,
    http_host: str = "0.0.0.0",  # noqa: S104
    grpc_port: int | None = 9000,
) -> Json:
    """Return the platform as Ray's ServeDeploySchema, ready for PUT /api/serve/applications/; no ``grpc_port``, no gRPC.

    Raises:
        OpenToEverybody: others than this machine would reach it without any key, and `auth.allow_anonymous` is not set.
    """
    if not (is_loopback(http_host) or config.auth.is_on or config.auth.allow_anonymous):
        raise OpenToEverybody(http_host)
    is_budgeted = config.scaling.max_accelerators is not None
    apps = [_rollouts_app(config), *(_embedder_app(each, is_budgeted=is_budgeted) for each in config.embedders)]
    variants = [(model, each) for model in config.models for each in model.variants if _runs(each)]
    apps += [_llm_app(model, each, is_budgeted=is_budgeted) for model, each in variants]
    if config.pipelines or config.vector_stores:
        apps.append(_retriever_app(config))
    if config.vector_stores:
        apps.append(_documents_app(config, config.vector_stores))
    if config.auth.is_on:  # some key may have limits, now or in a file of keys to come
        apps.append(_limits_app())
    apps.append(_router_app(config, is_local_only=is_loopback(http_host)))
    has_grpc = config.router.grpc and grpc_port is not None
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": http_host, "port": http_port, "keep_alive_timeout_s": 75},
        **({"grpc_options": {"port": grpc_port, "grpc_servicer_functions": list(_GRPC_SERVICES)}} if has_grpc else {}),
        "logging_config": {"encoding": "TEXT", "enable_access_log": False},
        "applications": apps,
    }


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def cpus_needed(schema: Json) -> float:
    """Return the CPUs that all replicas of a schema reserve, at their largest number."""
    total = 0.0
    for app in schema["applications"]:
        for deployment in app["deployments"]:
            scaling = deployment.get("autoscaling_config", {})
            replicas = scaling.get("max_replicas", deployment.get("num_replicas", 1))
            own = deployment["ray_actor_options"].get("num_cpus", 1)
            stages = deployment.get("placement_group_bundles", [{"CPU": own}])
            total += replicas * sum(bundle["CPU"] for bundle in stages)
    return total


def _app(name: str, builder: str, *, args: Json, deployment: Json, route_prefix: str | None = None) -> Json:
    return {
        "name": name,
        "route_prefix": route_prefix,
        "import_path": f"serve_app.apps:{builder}",
        "args": args,
        "deployments": [{**_HEALTH, **deployment}],
    }


def _written(part: Config, *, without: Collection[str] = ()) -> Json:
    """Return what the operator wrote of a part, as JSON."""
    return part.model_dump(mode="json", exclude_unset=True, exclude=set(without))


def _rollouts_app(config: PlatformConfig) -> Json:
    deployment = {
        "name": "Rollouts",
        "num_replicas": 1,
        "max_ongoing_requests": _MANY,
        "user_config": {PLATFORM: _written(config)},  # taken in place
        "ray_actor_options": {"num_cpus": 0.1},
    }
    return _app(ROLLOUTS_APP, "build_rollouts", args={"state_uri": config.rollouts.state_uri}, deployment=deployment)


def _limits_app() -> Json:
    # One ledger, so that limits hold across Routers.
    deployment = {"name": "Limits", "num_replicas": 1, "max_ongoing_requests": _MANY, "ray_actor_options": {"num_cpus": 0.1}}
    return _app(LIMITS_APP, "build_limits", args={}, deployment=deployment)


def _embedder_app(embedder: EmbedderConfig, *, is_budgeted: bool) -> Json:
    deployment = {
        "name": "Embedder",
        **_replicas(embedder, is_budgeted=is_budgeted and embedder.accelerator is not None),
        **STAGE_CALLS,
        "ray_actor_options": actor_options(cpus=float(embedder.threads), accelerator=embedder.accelerator),
    }
    args = {"config": _written(embedder, without=_COUNTS)}
    return _app(embedder_app(embedder.name), "build_embedder", args=args, deployment=deployment)


def _retriever_app(config: PlatformConfig) -> Json:
    bindings = sorted({(v.embedder, name) for p in config.pipelines for v in p.versions for name in v.collections})
    deployment = {
        "name": "Retriever",
        **_replicas(config.retriever),
        **STAGE_CALLS,
        "ray_actor_options": {"num_cpus": config.retriever.cpus},
    }
    args = {
        "bindings": [list(pair) for pair in bindings],
        "store": _written(config.vector_store),
        "config": _written(config.retriever, without={*_COUNTS, "cpus"}),
    }
    return _app(RETRIEVER_APP, "build_retriever", args=args, deployment=deployment)


def _documents_app(config: PlatformConfig, stores: VectorStoresConfig) -> Json:
    deployment = {
        "name": "Documents",
        # One: it alone writes the records, and holds them in memory.
        "num_replicas": 1,
        **STAGE_CALLS,
        "ray_actor_options": {"num_cpus": stores.cpus},
    }
    args = {
        "config": _written(stores, without={"cpus", "uri"}),
        "store": _written(config.vector_store),
        "uri": documents_uri(stores.uri, config.vector_store.uri),
        "embedder_source": next(e.source for e in config.embedders if e.name == stores.embedder),
    }
    return _app(DOCUMENTS_APP, "build_documents", args=args, deployment=deployment)


def _llm_app(model: ModelConfig, variant: VariantConfig, *, is_budgeted: bool) -> Json:
    deployment: Json = {
        "name": "LLM",
        **_replicas(variant, is_budgeted=is_budgeted and variant.accelerator is not None),
        "max_ongoing_requests": _MANY,
        # Serve waits this long for the destructor, which waits for open streams.
        "graceful_shutdown_timeout_s": variant.drain_timeout_s,
        **placement_of(variant).options(),
    }
    args = {"model": model.name, "config": _written(variant, without=NOT_IN_ARGS)}
    return _app(llm_app(model.name, variant.name), "build_llm", args=args, deployment=deployment)


def _runs(variant: VariantConfig) -> bool:
    """Whether a variant is an application at all: Serve takes no number of replicas that is zero."""
    return variant.autoscaling is not None or variant.replicas > 0


def _replicas(stage: Stage, *, is_budgeted: bool = False) -> Json:
    """Return the options of a deployment that say how many replicas it has, in all and on a node.

    A number that is fixed is a range of one: what has a policy from the start needs no restart to begin to scale.
    ``is_budgeted``: its least number is the policy's affair too, since Serve would take accelerators that others hold still.
    """
    scaling = stage.autoscaling
    least, most = (scaling.min_replicas, scaling.max_replicas) if scaling else (stage.replicas, stage.replicas)
    options = {
        "min_replicas": 0 if is_budgeted else least,
        "max_replicas": most,
        # No initial_replicas: Serve would go back to it at every change of the configuration. Delays are the policy's own.
        "upscale_delay_s": 0.0,
        "downscale_delay_s": 0.0,
        "metrics_interval_s": 1.0,  # deprecated, yet Serve still checks the look-back period against it
        "look_back_period_s": 5.0,
        # Without arguments, alike for all: Serve counts the policy into the version of the code, so an argument that
        # changes would restart every replica. What a policy goes by reaches it another way.
        "policy": {"policy_function": "autoscaling.policy:QueueDepthPolicy", "policy_kwargs": {}},
    }
    spread = {} if stage.max_replicas_per_node is None else {"max_replicas_per_node": stage.max_replicas_per_node}
    return {"autoscaling_config": options, **spread}


def _router_app(config: PlatformConfig, *, is_local_only: bool) -> Json:
    deployment = {
        "name": "Router",
        **_replicas(config.router),
        "max_ongoing_requests": config.router.max_open_requests,
        **ROUTER_QUEUE,
        "graceful_shutdown_timeout_s": config.router.drain_timeout_s,
        "ray_actor_options": {"num_cpus": config.router.cpus, "runtime_env": {"env_vars": _router_env(config, is_local_only)}},
    }
    return _app(ROUTER_APP, "build_router", args={}, deployment=deployment, route_prefix="/")


def _router_env(config: PlatformConfig, is_local_only: bool) -> dict[str, str]:
    # Serve's gRPC servers take 2 GiB. The Router refuses what is over `limits.max_body_bytes`, but only once it has it.
    most_bytes = max(_GRPC_MESSAGE_BYTES, config.limits.max_body_bytes + 2**20)
    env = {**_ROUTER_ENV, "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(most_bytes)}
    return {**env, LOCAL_ONLY: "1"} if is_local_only else env


def build_rollouts(args: Json) -> Application:
    """Build the Rollouts app."""
    from deployments.serving import ServedRollouts

    return _bind(ServedRollouts, "Rollouts", args)


def build_limits(args: Json) -> Application:
    """Build the app of the ledger of limits."""
    from deployments.limits import Limits

    return _bind(Limits, "Limits", args)


def build_embedder(args: Json) -> Application:
    """Build an embedder's app."""
    from deployments.serving import ServedEmbedder

    return _bind(ServedEmbedder, "Embedder", args)


def build_retriever(args: Json) -> Application:
    """Build the Retriever app."""
    from deployments.serving import ServedRetriever

    return _bind(ServedRetriever, "Retriever", args)


def build_documents(args: Json) -> Application:
    """Build the app of uploads and vector stores."""
    from deployments.documents import ServedDocuments

    return _bind(ServedDocuments, "Documents", args)


def build_llm(args: Json) -> Application:
    """Build a model variant's app."""
    from deployments.llm.deployment import LLM

    return _bind(LLM, "LLM", args)


def build_router(args: Json) -> Application:
    """Build the Router app."""
    from ray import serve

    from deployments.router import Router, build_asgi

    return _bind(serve.ingress(build_asgi)(Router), "Router", args)


def _bind(deployment: type, name: str, args: Json) -> Application:
    from ray import serve

    decorate: Callable[[type], Deployment] = serve.deployment(name=name)
    return decorate(deployment).bind(**args)
