"""What is told of adapters: to Routers, in lists of models, in the status report, and on both fronts."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from serve_app.apps import build_schema
from serve_app.commands import status as status_command
from serve_app.commands.validate import summary
from serve_app.config import ApiKeyConfig, PlatformConfig
from serve_app.errors import Forbidden, UnknownModel
from serve_app.inference import Inference
from serve_app.model_cards import model_cards
from serve_app.protos.manta.v1 import inference_pb2, inference_pb2_grpc
from serve_app.rollout.commands import Verb
from serve_app.rollout.controller import Controller
from serve_app.rollout.document import RoutedAdapter, RoutingDocument, declared_split, parts, revisions, routing_document
from serve_app.rollout.gathering import Gathering
from serve_app.rollout.table import Share, Split
from serve_app.status import status_report
from serve_app.view import ANONYMOUS, RoutingView
from tests.unit.serve_app.adapting import LEGAL, adapter, routing, served
from tests.unit.serve_app.commands.figures import cells
from tests.unit.serve_app.fakes import SSE, FakeClock, FakeResponse, document, entry, snapshot, upstream_of
from tests.unit.serve_app.rest.front import request
from tests.unit.serve_app.rpc.front import channel

HALVES = adapter(v1=60, v2=40)
ROLLOUT = {"variant": "v2", "baseline": "v1", "steps": [{"weight": 5, "pause": "10m"}]}
VERSIONS: list[dict[str, Any]] = [{"name": "v1", "source": "org/one"}, {"name": "v2", "source": "org/two", "weight": 0}]
PLATFORM: dict[str, Any] = {
    "models": [
        {
            "name": "chat",
            "variants": [{"name": "stable", "source": "org/a", "engine": {"lora": {}}}],
            "adapters": [
                {"name": "legal", "versions": VERSIONS, "rollout": ROLLOUT},
                {"name": "code", "source": "s3://bucket/code"},
            ],
        }
    ]
}


def routed(platform: dict[str, Any] = PLATFORM) -> RoutingDocument:
    return routing_document(PlatformConfig.model_validate(platform))


def test_routers_learn_of_adapters_by_their_public_names() -> None:
    [chat] = routed().models
    assert [(a.name, a.model, [(v.name, v.source, v.weight) for v in a.versions]) for a in chat.adapters] == [
        (LEGAL, "chat", [("v1", "org/one", 100), ("v2", "org/two", 0)]),
        ("chat:code", "chat", [("v1", "s3://bucket/code", 100)]),
    ]
    assert RoutingDocument.model_validate_json(routed().model_dump_json()) == routed()


def test_an_adapter_is_a_part_with_a_split_and_revisions() -> None:
    chat, legal, code = parts(routed())
    assert isinstance(legal, RoutedAdapter)
    assert [part.name for part in (chat, legal, code)] == ["chat", LEGAL, "chat:code"]
    shares = (Share(variant="v1", weight=100), Share(variant="v2", weight=0))
    assert declared_split(legal) == Split(name=LEGAL, shares=shares, baseline="v1")
    assert revisions(legal) == {name: tag.revision for name, tag in legal.tags.items()}
    assert [tag.key for tag in legal.tags.values()] == ["legal/v1", "legal/v2"]


def test_another_source_is_another_revision_and_another_weight_is_not() -> None:
    [chat] = routed().models
    changed = {**PLATFORM["models"][0], "adapters": [{"name": "legal", "versions": [{**VERSIONS[0], "source": "org/new"}]}]}
    [other] = routed({"models": [changed]}).models
    first, second = chat.adapters[0].versions[0], other.adapters[0].versions[0]
    assert first.revision != second.revision
    lighter = [{**VERSIONS[0], "weight": 60}, {**VERSIONS[1], "weight": 40}]
    [same] = routed({"models": [{**changed, "adapters": [{"name": "legal", "versions": lighter}]}]}).models
    assert same.adapters[0].versions[0].revision == first.revision


WITHOUT = {"models": [{**PLATFORM["models"][0], "adapters": []}]}


def test_adapters_are_no_part_of_what_a_replica_is_made_of() -> None:
    assert [v.revision for v in routed().models[0].variants] == [v.revision for v in routed(WITHOUT).models[0].variants]


def test_adapters_change_what_rollouts_is_told_and_nothing_else_that_is_deployed() -> None:
    schemas = [build_schema(PlatformConfig.model_validate(each), http_host="127.0.0.1") for each in (PLATFORM, WITHOUT)]
    told = [app["deployments"][0].pop("user_config") for schema in schemas for app in schema["applications"]
            if app["name"] == "rollouts"]  # fmt: skip
    assert told[0] != told[1]
    assert schemas[0] == schemas[1]


@pytest.mark.parametrize("name", ["chat:", "chat:a:b", ":a", "Chat:a"])
def test_what_is_no_public_name_has_no_split(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Split(name=name, shares=(Share(variant="v1", weight=100),), baseline="v1")


def test_a_rollout_of_an_adapter_needs_no_replica_and_is_commanded_by_its_public_name() -> None:
    clock = FakeClock()
    controller = Controller(Gathering(), wall=clock)
    controller.declare(routed())

    class Nobody:
        def ready(self, *_: str) -> int:
            raise AssertionError("an adapter has no replicas")

        losses = ready

    controller.tick(Nobody(), now_s=clock.now_s)
    assert dict(controller.table.by_name[LEGAL].weights) == {"v1": 95, "v2": 5}
    assert controller.command(LEGAL, Verb.ABORT, by="ann").weights == {"v1": 100, "v2": 0}
    assert dict(controller.table.by_name["chat"].weights) == {"stable": 100}


TENANT = ApiKeyConfig(name="ann", hash=f"sha256:{'0' * 32}:{'1' * 64}")
CARD = {"object": "model", "created": 0, "owned_by": "manta", "engine": "simulated"}


def test_admins_see_an_adapters_versions_and_everybody_its_parent() -> None:
    view = RoutingView(routing(HALVES))
    _, legal, *_ = model_cards(view, ANONYMOUS)
    shares = [{"name": "v1", "weight": 60}, {"name": "v2", "weight": 40}]
    assert legal == {**CARD, "id": LEGAL, "kind": "adapter", "parent": "chat", "versions": shares}
    _, legal, *_ = model_cards(view, TENANT)
    assert legal == {**CARD, "id": LEGAL, "kind": "adapter", "parent": "chat"}


def test_a_key_lists_the_adapters_that_it_names() -> None:
    view = RoutingView(routing(HALVES))
    assert [card["id"] for card in model_cards(view, TENANT.model_copy(update={"models": (LEGAL,)}))] == [LEGAL]
    assert [card["id"] for card in model_cards(view, TENANT.model_copy(update={"models": ("chat",)}))] == ["chat"]


async def test_a_single_card_is_found_by_the_public_name_and_guarded_by_it() -> None:
    inference = Inference(served(routing=routing(HALVES)))
    assert (await inference.model(ANONYMOUS, LEGAL))["parent"] == "chat"
    with pytest.raises(Forbidden):
        await inference.model(TENANT.model_copy(update={"models": ("chat",)}), LEGAL)
    with pytest.raises(UnknownModel):
        await inference.model(ANONYMOUS, "chat:other")


@pytest.mark.parametrize("path", ["/v1/models/chat:legal", "/v1/models/chat%3Alegal", "/readyz?model=chat:legal"])
async def test_paths_and_queries_name_an_adapter(path: str) -> None:
    answer = await request(served(routing=routing()), "GET", path)
    assert answer.status_code == 200
    assert (await request(served(routing=routing()), "GET", f"{path}x")).status_code == 404


async def test_an_answer_names_the_adapter_and_its_version() -> None:
    made = served(FakeResponse((b"{}",)), FakeResponse((b"data: [DONE]\n\n",), content_type=SSE), routing=routing())
    for is_stream in (False, True):
        body = json.dumps({"model": LEGAL, "messages": [], "stream": is_stream}).encode()
        answer = await request(made, "POST", "/v1/chat/completions", content=body)
        said = [answer.headers[f"x-manta-{name}"] for name in ("model", "variant", "adapter-version")]
        assert (answer.status_code, said) == (200, [LEGAL, "stable", "v1"])


async def test_what_clients_say_of_adapters_in_headers_reaches_no_replica() -> None:
    made = served(routing=routing())
    headers = {"x-manta-adapter": "legal/v1", "x-manta-adapter-source": "/etc", "x-manta-adapter-revision": "1"}
    answer = await request(made, "POST", "/v1/chat/completions", content=b'{"model": "chat"}', headers=headers)
    assert (answer.status_code, upstream_of(made).requests[0].adapter) == (200, None)


async def test_grpc_lists_adapters() -> None:
    async with channel(served(routing=routing(HALVES))) as opened:
        stub: Any = inference_pb2_grpc.InferenceStub(opened)  # type: ignore[no-untyped-call]
        listed = await stub.ListModels(inference_pb2.ListModelsRequest())
    [found] = [model for model in listed.models if model.id == LEGAL]
    assert found.kind == inference_pb2.MODEL_KIND_ADAPTER
    assert [(share.name, share.weight) for share in found.versions] == [("v1", 60), ("v2", 40)]
    assert found.card["parent"] == "chat"


SERVE = SimpleNamespace(applications={})


def test_the_status_says_where_versions_are_loaded() -> None:
    made = served(routing=routing(HALVES))
    replicas = (entry("r1", adapters=("legal/v1", "legal/v2")), entry("r2", adapters=("legal/v1",)), entry("r3"))
    made.update(snapshot(*replicas, routing=routing(HALVES), version=2))
    report = status_report(made, SERVE)
    [chat] = report["models"]
    what = {"source": "/adapters/v1", "revision": "rev-v1"}
    first = {"name": "v1", "weight": 60, "declared_weight": 60, **what, "loaded_replicas": 2}
    assert chat["adapters"][0]["versions"][0] == first
    assert [replica["adapters"] for replica in chat["variants"][0]["replicas_detail"]] == [
        ["legal/v1", "legal/v2"],
        ["legal/v1"],
        [],
    ]
    assert cells(status_command.adapters(report)) == [
        [LEGAL, "v1", "60", "/adapters/v1", "2"],
        [LEGAL, "v2", "40", "/adapters/v2", "1"],
    ]


def test_validation_sums_up_adapters_below_their_model() -> None:
    assert list(summary(PlatformConfig.model_validate(PLATFORM)))[1:] == [
        "adapter chat:legal: v1 100 % = org/one; v2 0 % = org/two",
        "adapter chat:code: v1 100 % = s3://bucket/code",
    ]


def test_a_table_that_says_nothing_of_an_adapter_is_refused() -> None:
    view = RoutingView(routing())
    with pytest.raises(ValueError, match="says nothing of 'chat:legal'"):
        view.with_table(RoutingView(document()).table)
