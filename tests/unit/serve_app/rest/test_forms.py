from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import BadRequest
from serve_app.rest.forms import parse_form
from tests.unit.serve_app.fakes import upstream_of
from tests.unit.serve_app.rest.front import ASK, CHAT, error_of, ready, request

SPEECH = "/v1/audio/transcriptions"


def form(data: dict[str, str], audio: bytes = b"RIFF") -> tuple[bytes, str]:
    sent = httpx.Request("POST", "http://manta", data=data, files={"file": ("a.wav", audio)})
    return sent.read(), sent.headers["content-type"]


def test_what_a_router_must_know_is_found() -> None:
    raw, kind = form({"model": "chat", "language": "en", "stream": "true", "user": "ann"})
    found = parse_form(raw, kind)
    assert (found["model"], found["stream"], found["user"], "language" in found) == ("chat", True, "ann", False)


def test_each_form_is_a_conversation_of_its_own() -> None:
    assert parse_form(*form({}, b"one"))["input"] != parse_form(*form({}, b"other"))["input"]


def test_a_file_called_model_is_no_model() -> None:
    sent = httpx.Request("POST", "http://manta", files={"model": ("chat", b"chat")})
    assert "model" not in parse_form(sent.read(), sent.headers["content-type"])


@pytest.mark.parametrize(
    ("raw", "kind", "message"),
    [
        (b"", "multipart/form-data", "must name its boundary"),
        (b"nothing", "multipart/form-data; boundary=b", "no valid multipart"),
        (b"--b\r\n", "multipart/form-data; boundary=b", "last boundary is missing"),
        (form({"model": "m" * 1025})[0], form({})[1], "no valid multipart"),
        (b"x", f"multipart/form-data; boundary={'b' * 300}", "no valid multipart"),
    ],
    ids=["no-boundary", "no-form", "cut", "another-boundary", "long-boundary"],
)
def test_a_malformed_form_is_refused(raw: bytes, kind: str, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_form(raw, kind)


@pytest.mark.parametrize("value", ["m" * 1025, "\udcff"], ids=["long", "no-utf-8"])
def test_a_field_that_is_no_name_is_refused(value: str) -> None:
    raw, kind = form({"model": "MODEL"})
    with pytest.raises(BadRequest) as caught:
        parse_form(raw.replace(b"MODEL", value.encode("utf-8", "surrogateescape")), kind)
    assert caught.value.param == "model"


@given(st.binary(max_size=300), st.text(max_size=60))
def test_any_bytes_are_a_form_or_a_bad_request(noise: bytes, kind: str) -> None:
    for raw, content_type in (
        (noise, f"multipart/form-data; boundary*=utf-8''{kind}"),
        (noise, f"multipart/form-data; boundary={kind}"),
        (b"--b\r\n" + noise, "x/y; boundary=b"),
    ):
        try:
            parse_form(raw, content_type)
        except BadRequest:
            continue


async def test_speech_is_relayed_as_it_came() -> None:
    raw, kind = form({"model": "chat"}, bytes(range(256)) * 100)
    made = ready()
    assert (await request(made, "POST", SPEECH, content=raw, headers={"content-type": kind})).status_code == 200
    [sent] = upstream_of(made).requests
    assert (sent.body == raw, sent.content_type) == (True, kind)


async def test_a_form_without_a_model_is_refused() -> None:
    raw, kind = form({"language": "en"})
    response = await request(ready(), "POST", SPEECH, content=raw, headers={"content-type": kind})
    assert error_of(response) == (400, "invalid_request", "model")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/xml", "json"])
async def test_other_kinds_of_body_are_refused(kind: str) -> None:
    response = await request(ready(), "POST", CHAT, content=b"{}", headers={"content-type": kind})
    assert error_of(response) == (400, "invalid_request", "content-type")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json", ""])
async def test_json_goes_by_several_names(kind: str) -> None:
    assert (await request(ready(), "POST", CHAT, json=ASK, headers={"content-type": kind})).status_code == 200


async def test_an_embedder_takes_no_form() -> None:
    raw, kind = form({"model": "minilm"})
    response = await request(ready(), "POST", "/v1/embeddings", content=raw, headers={"content-type": kind})
    assert error_of(response) == (400, "invalid_request", "content-type")
