from __future__ import annotations

import time

import httpx
import pytest
from jsonschema import Draft202012Validator

from serve_app.config import AuthConfig
from serve_app.inference import Inference
from serve_app.rest import timeline as timeline_routes
from serve_app.rest.app import RestApp
from serve_app.rest.operation import JSON_TYPE
from serve_app.timeline import Figures, Timeline
from tests.unit.serve_app.rest.front import ready
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY

NO_KEYS = AuthConfig()


async def ask(timeline: Timeline, *, key: str | None = None, auth: AuthConfig = NO_KEYS) -> httpx.Response:
    inference = Inference(ready(auth=auth))
    app = RestApp(inference, more=timeline_routes.routes(inference, timeline))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://manta") as client:
        return await client.get("/admin/timeline", headers={"authorization": f"Bearer {key}"} if key else {})


async def test_it_is_told_as_the_document_of_the_api_says() -> None:
    timeline, now_s = Timeline(), time.time()
    timeline.add({("chat", "stable"): Figures(100, 1, 2, 3)}, now_s=now_s - 5)
    timeline.add({("chat", "canary"): Figures(0, 1, 0, 0)}, now_s=now_s)
    told = (await ask(timeline)).json()
    assert [each["queue_depth"] for each in told["series"]] == [[None, 0], [2, None]]
    schema = timeline_routes.SHOW.answers[JSON_TYPE]
    assert isinstance(schema, dict)
    Draft202012Validator(schema).validate(told)


@pytest.mark.parametrize(("key", "status"), [(None, 401), (ANN_KEY, 403), (BOB_KEY, 200)], ids=["none", "user", "admin"])
async def test_where_there_are_keys_only_an_admins_will_do(key: str | None, status: int) -> None:
    assert (await ask(Timeline(), key=key, auth=AuthConfig(keys=(ANN, BOB)))).status_code == status
