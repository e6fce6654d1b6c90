from __future__ import annotations

import pytest

from tests.leaks import leaks_in


@pytest.mark.parametrize(
    "text",
    [
        'Traceback (most recent call last):\n  File "x"',
        "cannot read /tmp/mt-1/keys.yaml",
        "connect to 192.0.2.2 failed",
        "connect to [::1] failed",
        "node:31832 refused",
        "No module named 'serve_app'",
        "Unexpected <class 'ValueError'>",
        "ray.serve.exceptions.RayServeException",
        "<Router object at 0x7f0011223344>",
    ],
)
def test_what_shows_internals_is_found(text: str) -> None:
    assert leaks_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "this API key is not known here",
        "unknown request URL: GET /v1/nothing",
        "content-type must be application/json here",
        "model 'array' is not served here; GET /v1/models lists what is",
    ],
)
def test_plain_words_pass(text: str) -> None:
    assert leaks_in(text) == []
