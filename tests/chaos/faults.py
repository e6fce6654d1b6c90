"""What the tests of faults share: the parts, how they are broken, and how they come back."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Callable, Iterator
from functools import partial

import httpx
import psutil

from tests.chaos.cluster import ChaosCluster
from tests.chaos.network import run
from tests.chaos.platform import wait_answers
from tests.chaos.processes import kill
from tests.chaos.steady import Effect, SteadyLoad, wait_until

WATCHED_S = 12.0
BACK_WITHIN_S = 180.0
Note = Callable[[Effect], None]

PARTS = {
    "LLM replica": ("llm.chat.stable", "LLM"),
    "Router": ("router", "Router"),
    "Retriever": ("retriever", "Retriever"),
    "Embedder": ("embedder.minilm", "Embedder"),
    "Rollouts": ("rollouts", "Rollouts"),
}
LIES: dict[str, dict[str, float]] = {
    "slower by 50": {"slow_factor": 50.0},
    "answers 500": {"error_ratio": 1.0},
    "answers garbage": {"garbage_ratio": 1.0},
    "sends half a stream": {"half_stream_ratio": 1.0},
    "ends streams early": {"silent_end_ratio": 1.0},
    "never answers": {"hang_ratio": 1.0},
}


@contextlib.contextmanager
def lying(cluster: ChaosCluster, lie: str) -> Iterator[None]:
    """Have one LLM replica misbehave for the block."""
    url, headers = replica_url(cluster), {"authorization": f"Bearer {cluster.token}"}
    answer = httpx.post(f"{url}/simulated/faults", json=LIES[lie], headers=headers, timeout=10)
    assert answer.status_code == 200, answer.text
    try:
        yield
    finally:
        with contextlib.suppress(httpx.HTTPError):  # it may have been replaced
            httpx.delete(f"{url}/simulated/faults", headers=headers, timeout=10)


def is_replaced(cluster: ChaosCluster, app: str, deployment: str, before: set[str]) -> bool:
    """Whether there are as many replicas as before, at least one of them new."""
    now = set(cluster.running(app, deployment))
    return len(now) == len(before) and bool(now - before)


def watched(load: SteadyLoad, fault: str, *, began_s: float, back_s: float, note: Note) -> Effect:
    """Return what clients saw until some time after it, and keep it for the table."""
    time.sleep(max(3.0, began_s + WATCHED_S - time.monotonic()))
    ended_s = time.monotonic()
    load.wait_ended(ended_s)
    effect = load.effect(fault, began_s=began_s, back_s=back_s, ended_s=ended_s)
    note(effect)
    return effect


@contextlib.contextmanager
def cut_off(cluster: ChaosCluster, name: str) -> Iterator[None]:
    """Cut a node off the network for the block."""
    cluster.cut(name)
    try:
        yield
    finally:
        cluster.mend(name)


@contextlib.contextmanager
def out_of_descriptors(process: psutil.Process) -> Iterator[None]:
    """Leave a process next to no file descriptors for the block."""
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (max(64, process.num_fds() - 20), before[1]))
    try:
        yield
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)


@contextlib.contextmanager
def store_away(cluster: ChaosCluster) -> Iterator[None]:
    """Have every node see an empty folder where the vector store is, as when its volume is lost, for the block."""
    folder = cluster.deployed["vector_store"]["uri"]
    inside = [("nsenter", "-t", str(node.processes()[0].pid), "-m", "-p") for node in cluster.workers]
    for enter in inside:
        run(*enter, "mount", "-t", "tmpfs", "tmpfs", folder)
    try:
        yield
    finally:
        for enter in inside:
            run(*enter, "umount", "--lazy", folder)


def replica_url(cluster: ChaosCluster) -> str:
    """Return where one LLM replica listens, once there are two."""
    ready: list[str] = []

    def are_two() -> bool:
        report = httpx.get(f"{cluster.urls()[0]}/admin/status", timeout=30).json()
        ready[:] = [each["url"] for each in report["models"][0]["variants"][0]["replicas_detail"] if each["state"] == "ready"]
        return len(ready) == 2

    wait_until(are_two, within_s=BACK_WITHIN_S)
    return ready[0]


def two_copies() -> list[tuple[str, str]]:
    """Return the parts that have two copies."""
    return [part for name, part in PARTS.items() if name != "Rollouts"]


def spread(cluster: ChaosCluster, load: SteadyLoad) -> None:
    """Have a copy of every part on both workers, and both workers' proxies answer: a node without replicas has none."""
    for part in two_copies():
        _spread(cluster, *part)
    for url in cluster.urls():
        wait_answers(url)
    load.wait_calm()


def _spread(cluster: ChaosCluster, app: str, deployment: str) -> None:
    for _ in range(6):
        wait_until(lambda: len(cluster.find(f"{app}:{deployment}")) >= 2, within_s=BACK_WITHIN_S)
        copies = cluster.find(f"{app}:{deployment}")
        if len({cluster.node_of(copy).name for copy in copies}) == len(cluster.workers):
            return
        before = set(cluster.running(app, deployment))
        kill(copies[-1])
        wait_until(partial(is_replaced, cluster, app, deployment, before), within_s=BACK_WITHIN_S)
    raise AssertionError(f"the copies of {app} stay on one node")


def terminate(cluster: ChaosCluster, name: str, *, within_s: float) -> None:
    """End a node as Kubernetes ends a pod that is evicted: by SIGTERM, after which it drains."""
    node = cluster.nodes[name]
    started = cluster.find("ray.scripts.scripts start", node=name)[-1]  # the first is the watchdog
    started.terminate()
    assert node.process is not None
    node.process.wait(timeout=within_s)


def rollouts_free_worker(cluster: ChaosCluster) -> str:
    """Return a worker without Rollouts, of which there is one."""
    [rollouts] = cluster.find("rollouts:Rollouts")
    return next(node.name for node in cluster.workers if node != cluster.node_of(rollouts))


def is_in_control(cluster: ChaosCluster) -> bool:
    """Whether Serve's controller answers and calls every application running."""
    try:
        found = cluster.applications()
    except httpx.HTTPError:
        return False
    return bool(found) and all(app["status"] == "RUNNING" for app in found.values())
