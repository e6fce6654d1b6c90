"""Requests that nobody would write: from the OpenAPI document by schemathesis, and JSON bodies of any kind by hypothesis."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any, Self

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serve_app.rest.relayed import RELAYED_PATHS

NAMES = ("chat", "docs", "minilm")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
TIMEOUT_S = 30.0  # for one answer; one that takes longer hangs


class Target:
    """A platform, or a part of one, that listens on a URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def operations(self) -> Iterator[Any]:
        """Yield the operations of the document that it serves."""
        document = self._session.get(f"{self.url}/openapi.json", timeout=TIMEOUT_S).json()
        for found in schemathesis.openapi.from_dict(document).get_all_operations():
            assert isinstance(found, Ok)
            yield found.ok()

    def send(self, case: Case[Any]) -> Any:
        """Return the answer to a case."""
        return case.call(base_url=self.url, session=self._session, timeout=TIMEOUT_S)

    def post(self, path: str, body: bytes) -> requests.Response:
        """Return the answer to a body that is said to be JSON."""
        headers = {"content-type": "application/json"}
        return self._session.post(f"{self.url}{path}", data=body, headers=headers, timeout=TIMEOUT_S)


def _run(check: Any, *strategies: st.SearchStrategy[Any], examples: int) -> None:
    many = settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    many(given(*strategies)(check))()


def fuzz_document(target: Target, *, examples: int) -> int:
    """Send ``examples`` good and as many bad requests to each operation; return how many were sent.

    Raises what schemathesis does when an answer is a server error, or not as the document says.
    """
    sent = 0

    def check(case: Case[Any]) -> None:
        nonlocal sent
        sent += 1
        _name_a_model(case, sent)
        case.validate_response(target.send(case), checks=CHECKS)

    for operation in target.operations():
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            with contextlib.suppress(Unsatisfiable):  # where nothing is asked for, nothing can be wrong
                _run(check, operation.as_strategy(generation_mode=mode), examples=examples)
    return sent


def _name_a_model(case: Case[Any], number: int) -> None:
    """Let two of three requests name something that is served; no generated text ever would."""
    if isinstance(case.body, dict) and number % 3:
        case.body["model"] = NAMES[number % len(NAMES)]
    if "model" in case.path_parameters and number % 3:
        case.path_parameters["model"] = NAMES[number % len(NAMES)]


_NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([10**30, -(10**400), 2**63, 1e308, -0.0]),
)
_TEXTS = st.one_of(st.text(max_size=20), st.sampled_from(["\ud800", "\udfff x", "\x00", "user", "true"]))
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_TEXTS, inner, max_size=4)),
    max_leaves=12,
)
_DEEP = st.integers(1, 2000).map(lambda depth: "[" * depth + "]" * depth)
_LITERALS = st.one_of(
    _VALUES.map(json.dumps),
    _DEEP,
    st.sampled_from(["1e400", "-1e999", "9" * 5000, "NaN", "Infinity", '"\\ud800"', "{}", "[[]]", "", "nul", '"\x01"', "1."]),
)
# The count of tokens is left out: a large one is a long answer, and no error.
_FIELDS = st.one_of(
    st.sampled_from(
        [
            *("messages", "prompt", "input", "stream", "n", "user", "query", "documents", "text_1", "tokens", "retrieval"),
            *("stop", "temperature", "seed", "tools", "stream_options", "system", "dimensions", "encoding_format", "model"),
        ]
    ),
    st.text(max_size=8),
)
_MESSAGES = st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system", ""]), "content": _VALUES}), max_size=3)


def _body(model: str, fields: list[tuple[str, str]], messages: str) -> bytes:
    members = [("model", json.dumps(model)), ("messages", messages), *fields]
    return ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members) + "}").encode("utf-8", "surrogatepass")


BODIES = st.one_of(
    st.builds(
        _body,
        st.sampled_from([*NAMES, "nobody"]),
        st.lists(st.tuples(_FIELDS, _LITERALS), max_size=6),  # a field may come twice
        _MESSAGES.map(json.dumps),
    ),
    _LITERALS.map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=60),
)


def fuzz_bodies(target: Target, *, examples: int) -> int:
    """Post ``examples`` random bodies to each relayed endpoint; return how many were sent.

    Raises AssertionError when an answer is a server error, or an error without an error object.
    """
    sent = 0

    def check(path: str, body: bytes) -> None:
        nonlocal sent
        sent += 1
        response = target.post(path, body)
        assert response.status_code < 500, response.content
        assert response.headers["x-request-id"]
        if response.status_code != 200:
            assert "error" in response.json()

    for path in RELAYED_PATHS:
        _run(check, st.just(path), BODIES, examples=examples)
    return sent
