"""curl -N: what a shell sees."""

from __future__ import annotations

import json
import subprocess
import time
from typing import Any

from tests.e2e.clients.checks import ABOUT, PROMPT, QUESTION, Checks, place

HERE = place()
check = Checks()
LINES = 300  # of a stream, that are looked at
JSON = ("-H", "content-type: application/json")


def command(path: str, body: dict[str, Any] | None = None, *options: str, key: str = HERE.key) -> list[str]:
    made = ["curl", "-sS", "-N", "--max-time", "120", f"{HERE.url}{path}", "-H", f"authorization: Bearer {key}", *options]
    return made if body is None else [*made, *JSON, "-d", json.dumps(body)]


def curl(path: str, body: dict[str, Any] | None = None, *options: str, key: str = HERE.key) -> str:
    made = command(path, body, *options, key=key)
    return subprocess.run(made, capture_output=True, text=True, check=True).stdout


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 40, **more}


def events_of(output: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in output.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@check("chat")
def whole_chat() -> str:
    answer = json.loads(curl("/v1/chat/completions", chat()))
    assert answer["object"] == "chat.completion"
    return str(answer["choices"][0]["message"]["content"])


@check("stream")
def stream() -> str:
    whole = json.loads(curl("/v1/chat/completions", chat()))
    events = events_of(curl("/v1/chat/completions", chat(stream=True)))
    text = "".join(event["choices"][0]["delta"].get("content") or "" for event in events)
    assert text == whole["choices"][0]["message"]["content"]
    return f"{len(events)} events"


@check("lines-arrive-one-by-one")
def lines_arrive_one_by_one() -> str:
    # On a machine that is busy with something else, curl itself may stand still for a second, and then reads many at once.
    tries = [arrivals_s() for _ in range(3)]
    moments = [len({round(at_s, 2) for at_s in times}) for times in tries]
    assert {len(times) for times in tries} == {LINES}
    assert max(moments) > LINES / 30, f"{LINES} lines in {moments} moments"
    times = tries[moments.index(max(moments))]
    return f"{LINES} lines in {max(moments)} moments, from {times[0]:.2f} to {times[-1]:.2f} s"


def arrivals_s() -> list[float]:
    """Return when the lines of a stream arrived, as many as are looked at."""
    body = {
        "model": "chat",
        "prompt": "import os",
        "stream": True,
        "temperature": 0,
        "max_tokens": 2 * LINES,
        "ignore_eos": True,
    }
    started_s = time.monotonic()
    times: list[float] = []
    with subprocess.Popen(command("/v1/completions", body), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            times += [time.monotonic() - started_s] if line.startswith("data: ") else []
            if len(times) == LINES:
                break
        process.terminate()
    return times


@check("headers")
def headers() -> str:
    shown = curl("/v1/chat/completions", chat(max_tokens=1), "-i", "-H", "x-request-id: matrix-curl").lower()
    assert "\nx-request-id: matrix-curl" in shown
    assert "\nx-manta-model: chat" in shown
    assert "\nx-manta-variant: " in shown
    return "x-request-id, x-manta-model, x-manta-variant"


@check("pipeline")
def pipeline() -> str:
    body = {"model": "docs-assistant", "stream": True, "messages": [{"role": "user", "content": QUESTION}]}
    events = events_of(curl("/v1/chat/completions", body))
    [citations] = [event["citations"] for event in events if "citations" in event]
    assert ABOUT in {citation["document_id"] for citation in citations}
    return f"{len(citations)} citations"


@check("x-api-key")
def x_api_key() -> str:
    body = {"model": "chat", "max_tokens": 4, "messages": [{"role": "user", "content": PROMPT}]}
    made = ["curl", "-sS", f"{HERE.url}/v1/messages", "-H", f"x-api-key: {HERE.key}", *JSON, "-d", json.dumps(body)]
    answer = json.loads(subprocess.run(made, capture_output=True, text=True, check=True).stdout)
    assert answer["type"] == "message", answer
    return str(answer["stop_reason"])


@check("openapi")
def openapi() -> str:
    document = json.loads(curl("/openapi.json"))
    assert "/v1/chat/completions" in document["paths"]
    assert "html" in curl("/docs").lower()
    return f"{len(document['paths'])} paths"


@check("no-content-type")
def no_content_type() -> str:
    error = json.loads(curl("/v1/chat/completions", None, "-d", json.dumps(chat())))["error"]
    assert error["type"] == "invalid_request_error"
    return str(error["message"])


@check("no-key")
def no_key() -> str:
    made = ["curl", "-sS", "-w", "\n%{http_code}", f"{HERE.url}/v1/models"]
    body, _, status = subprocess.run(made, capture_output=True, text=True, check=True).stdout.rpartition("\n")
    assert status == "401", status
    return str(json.loads(body)["error"]["message"])


@check("unknown-path")
def unknown_path() -> str:
    error = json.loads(curl("/v1/nothing", {}))["error"]
    assert error["type"] == "invalid_request_error"
    return str(error["message"])


if __name__ == "__main__":
    check.run()
