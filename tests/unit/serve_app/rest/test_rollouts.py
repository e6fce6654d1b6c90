"""The admin API of rollouts over a control that only remembers."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from serve_app.config import AuthConfig
from serve_app.errors import RolloutConflict, UnknownRollout
from serve_app.inference import Inference
from serve_app.rest import rollouts
from serve_app.rest.app import RestApp
from serve_app.rollout.commands import Verb
from tests.unit.serve_app.rest.front import error_of, ready
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY

REPORT: dict[str, Any] = {
    "table": {"version": 3, "digest": "d"},
    "routers": {"r": 3},
    "refused": None,
    "splits": [{"name": "chat", "phase": "running"}, {"name": "docs", "phase": None}],
    "stats": [{"name": "docs", "variant": "v1"}, {"name": "chat", "variant": "canary"}],
    "shadows": [{"name": "chat", "variant": "next"}],
}
MADE = {"name": "chat", "action": "paused", "weights": {"stable": 90, "canary": 10}}
EVERY_ROUTE = [
    ("GET", "/admin/rollouts"),
    ("GET", "/admin/rollouts/chat"),
    ("GET", "/admin/rollouts/chat/history"),
    ("POST", "/admin/rollouts/chat/abort"),
]


@dataclass
class FakeControl:
    """Knows `chat` and `docs`; of these only `chat` may be commanded."""

    commands: list[tuple[str, Verb, str]] = field(default_factory=list)

    async def rollouts(self) -> dict[str, Any]:
        return REPORT

    async def history(self, name: str) -> list[dict[str, Any]]:
        if name not in ("chat", "docs"):
            raise UnknownRollout(name)
        return [MADE]

    async def command(self, name: str, verb: Verb, *, by: str) -> dict[str, Any]:
        await self.history(name)
        if name == "docs":
            raise RolloutConflict("'docs' has no rollout")
        self.commands.append((name, verb, by))
        return MADE


async def ask(
    method: str,
    path: str,
    *,
    control: FakeControl | None = None,
    key: str | None = None,
    origin: str | None = None,
    **changes: Any,
) -> httpx.Response:
    inference = Inference(ready(**changes))
    app = RestApp(inference, more=rollouts.routes(inference, control or FakeControl()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://manta") as client:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        headers |= {"origin": origin} if origin else {}
        return await client.request(method, path, headers={"x-request-id": "req-1", **headers})


@pytest.mark.parametrize(("method", "path"), EVERY_ROUTE)
@pytest.mark.parametrize(("key", "status"), [(None, 401), (ANN_KEY, 403), (BOB_KEY, 200)], ids=["none", "user", "admin"])
async def test_where_there_are_keys_only_an_admins_will_do(method: str, path: str, key: str | None, status: int) -> None:
    control = FakeControl()
    answer = await ask(method, path, control=control, key=key, auth=AuthConfig(keys=(ANN, BOB)))
    assert (answer.status_code, bool(control.commands)) == (status, status == 200 and method == "POST")


async def test_everything_is_one_document() -> None:
    assert (await ask("GET", "/admin/rollouts")).json() == REPORT


async def test_of_one_there_is_what_concerns_it_and_what_concerns_all() -> None:
    assert (await ask("GET", "/admin/rollouts/chat")).json() == {
        "name": "chat",
        "phase": "running",
        "stats": [{"name": "chat", "variant": "canary"}],
        "shadows": [{"name": "chat", "variant": "next"}],
        "table": {"version": 3, "digest": "d"},
        "routers": {"r": 3},
        "refused": None,
    }


async def test_decisions_are_listed() -> None:
    assert (await ask("GET", "/admin/rollouts/docs/history")).json() == {"decisions": [MADE]}


@pytest.mark.parametrize("verb", list(Verb))
async def test_every_command_is_carried_out_in_the_name_of_its_key(verb: Verb) -> None:
    control = FakeControl()
    path = f"/admin/rollouts/chat/{verb.value}"
    answer = await ask("POST", path, control=control, key=BOB_KEY, auth=AuthConfig(keys=(BOB,)))
    assert (answer.json(), control.commands) == (MADE, [("chat", verb, "bob")])


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        pytest.param("https://evil.example", 403, id="of-another-site"),
        pytest.param("null", 403, id="of-a-file"),
        pytest.param("http://manta", 200, id="of-its-own"),
        pytest.param("https://ops.example", 200, id="of-one-that-may-call"),
    ],
)
async def test_a_page_commands_only_where_it_may(origin: str, status: int) -> None:
    control = FakeControl()
    path = "/admin/rollouts/chat/abort"
    answer = await ask("POST", path, control=control, origin=origin, cors_origins=("https://ops.example",))
    assert (answer.status_code, len(control.commands)) == (status, int(status == 200))


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        pytest.param("GET", "/admin/rollouts/nope", (404, "rollout_not_found", "name"), id="unknown-shown"),
        pytest.param("GET", "/admin/rollouts/nope/history", (404, "rollout_not_found", "name"), id="unknown-history"),
        pytest.param("POST", "/admin/rollouts/nope/pause", (404, "rollout_not_found", "name"), id="unknown-commanded"),
        pytest.param("POST", "/admin/rollouts/docs/pause", (409, "rollout_conflict", None), id="conflict"),
        pytest.param("POST", "/admin/rollouts/chat/explode", (404, "unknown_url", None), id="unknown-verb"),
        pytest.param("GET", "/admin/rollouts/chat/pause", (405, "method_not_allowed", None), id="read-a-command"),
        pytest.param("POST", "/admin/rollouts/chat/history", (405, "method_not_allowed", None), id="write-history"),
    ],
)
async def test_what_cannot_be_done_is_said(method: str, path: str, answer: tuple[int, str, str | None]) -> None:
    assert error_of(await ask(method, path)) == answer


async def test_an_unknown_command_is_answered_with_those_there_are() -> None:
    message = (await ask("POST", "/admin/rollouts/chat/explode")).json()["error"]["message"]
    assert message.endswith("use one of: pause, resume, promote, promote-fully, abort, restart")


async def test_every_command_leaves_one_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ray.serve")
    await ask("POST", "/admin/rollouts/chat/pause")
    await ask("POST", "/admin/rollouts/docs/abort")
    assert caplog.messages == [
        "rollout of 'chat': pause by key anonymous, request req-1: done",
        "rollout of 'docs': abort by key anonymous, request req-1: refused: 'docs' has no rollout",
    ]
