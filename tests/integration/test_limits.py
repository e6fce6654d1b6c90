"""Keys and limits on a running platform: two Routers, one limit; a file of keys that changes."""

from __future__ import annotations

import asyncio
import collections
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from serve_app.config import ApiKeyConfig
from serve_app.credentials import hash_of, new_key
from tests.integration.platform import Platform, simulated

pytestmark = pytest.mark.ray

LIMIT = 30
KEYS = {name: new_key(name) for name in ("ops", "ann", "busy", "late")}
CHAT = {"model": "chat", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}


def record(name: str, **more: Any) -> dict[str, Any]:
    made = ApiKeyConfig.model_validate({"name": name, "hash": hash_of(KEYS[name]), **more})
    return made.model_dump(mode="json", exclude_defaults=True)


def write(file: Path, *records: dict[str, Any]) -> None:
    file.write_text(yaml.safe_dump({"keys": list(records)}))


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    write(file, record("ann", requests_per_minute=LIMIT), record("busy", concurrent_requests=2))
    return file


@pytest.fixture(scope="module")
def limited(bare_platform: Platform, keys_file: Path) -> Platform:
    config = {
        "models": [{"name": "chat", "variants": [simulated(latency={"decode_s_per_token": 0.2})]}],
        "router": {"replicas": 2, "cpus": 0.1, "grpc": False},
        "auth": {"keys": [record("ops", admin=True)], "keys_file": str(keys_file)},
    }
    bare_platform.deploy(config)
    deadline_s = time.monotonic() + 60
    # Routers that ran before take the document within seconds, and the ledger grants once it has heard of all of them.
    while (answer := ask_once(bare_platform, "busy")).status_code != 200:
        assert time.monotonic() < deadline_s, answer.text
        time.sleep(0.5)
    return bare_platform


def ask_once(platform: Platform, name: str) -> httpx.Response:
    return httpx.post(f"{platform.url}/v1/chat/completions", json=CHAT, headers=bearer(name), timeout=60)


def bearer(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer {KEYS[name]}"}


async def ask_all(platform: Platform, name: str, count: int) -> list[httpx.Response]:
    """Ask on connections of their own, so that both Routers are reached."""

    async def one() -> httpx.Response:
        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(f"{platform.url}/v1/chat/completions", json=CHAT, headers=bearer(name))

    return list(await asyncio.gather(*(one() for _ in range(count))))


def test_two_routers_share_a_limit_of_requests(limited: Platform) -> None:
    started_s = time.monotonic()
    answers = asyncio.run(ask_all(limited, "ann", 2 * LIMIT))
    elapsed_s = time.monotonic() - started_s
    counts = collections.Counter(answer.status_code for answer in answers)
    assert set(counts) == {200, 429}, counts
    assert LIMIT / 2 <= counts[200] <= LIMIT + elapsed_s * LIMIT / 60
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["x-ratelimit-limit-requests"] == str(LIMIT)
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert "requests per minute" in refused.json()["error"]["message"]


def test_two_routers_share_a_limit_of_concurrent_requests(limited: Platform) -> None:
    answers = asyncio.run(ask_all(limited, "busy", 20))
    served = sum(answer.status_code == 200 for answer in answers)
    assert 1 <= served < 20
    assert {answer.status_code for answer in answers} == {200, 429}
    time.sleep(2)
    assert ask_once(limited, "busy").status_code == 200


def test_a_key_that_is_added_or_revoked_takes_effect_within_seconds(limited: Platform, keys_file: Path) -> None:
    assert ask_once(limited, "late").status_code == 401
    write(keys_file, record("ann", requests_per_minute=LIMIT), record("late"))
    time.sleep(6)  # each Router polls every two seconds
    assert [ask_once(limited, "late").status_code for _ in range(4)] == [200] * 4
    assert [ask_once(limited, "busy").status_code for _ in range(4)] == [401] * 4
