from __future__ import annotations

from typing import Any

import httpx
import pytest

from serve_app.config import AuthConfig
from serve_app.errors import Unavailable
from serve_app.inference import Inference
from serve_app.rest import scaling
from serve_app.rest.app import RestApp
from tests.unit.serve_app.rest.front import error_of, ready
from tests.unit.serve_app.test_view import ANN, ANN_KEY, BOB, BOB_KEY

REPORT: dict[str, Any] = {"budget": {"max_accelerators": 8, "in_use": 2}, "apps": [{"name": "llm.chat.stable"}]}


class FakeView:
    """Tells REPORT, or fails with ``error``."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    async def scaling(self) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        return REPORT


async def ask(view: FakeView | None = None, *, key: str | None = None, **changes: Any) -> httpx.Response:
    inference = Inference(ready(**changes))
    app = RestApp(inference, more=scaling.routes(inference, view or FakeView()))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://manta") as client:
        return await client.get("/admin/scaling", headers={"authorization": f"Bearer {key}"} if key else {})


async def test_everything_is_one_document() -> None:
    assert (await ask()).json() == REPORT


@pytest.mark.parametrize(("key", "status"), [(None, 401), (ANN_KEY, 403), (BOB_KEY, 200)], ids=["none", "user", "admin"])
async def test_where_there_are_keys_only_an_admins_will_do(key: str | None, status: int) -> None:
    assert (await ask(key=key, auth=AuthConfig(keys=(ANN, BOB)))).status_code == status


async def test_while_rollouts_is_away_it_says_so() -> None:
    assert error_of(await ask(FakeView(Unavailable("rollouts is not deployed yet"))))[0] == 503
