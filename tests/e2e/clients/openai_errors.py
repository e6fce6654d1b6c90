"""OpenAI's SDK: keys, limits, and the exceptions that answers become."""

from __future__ import annotations

from collections.abc import Callable

import openai

from tests.e2e.clients.checks import TRIES, Checks, error_of
from tests.e2e.clients.openai_client import ASK, HERE, client

check = Checks()


def with_key(key: str) -> openai.OpenAI:
    return client.with_options(api_key=key)


@check("wrong-key")
def wrong_key() -> str:
    errors = [error_of(openai.AuthenticationError, with_key(key).models.list) for key in ("manta_plain_wrong", "nonsense")]
    return errors[0].message


@check("expired-key")
def expired_key() -> str:
    expired = with_key(HERE.expired_key).chat.completions
    error = error_of(openai.AuthenticationError, lambda: expired.create(model="chat", messages=ASK, max_tokens=1))
    return error.message


@check("forbidden-model")
def forbidden_model() -> str:
    narrow = with_key(HERE.embedding_key)
    assert [card.id for card in narrow.models.list()] == ["minilm"]
    error = error_of(
        openai.PermissionDeniedError,
        lambda: narrow.chat.completions.create(model="chat", messages=ASK, max_tokens=1),
    )
    return error.message


@check("unknown-model")
def unknown_model() -> str:
    error = error_of(openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=ASK))
    assert error.param == "model"
    return f"{error.code}: {error.message}"


@check("bad-parameter")
def bad_parameter() -> str:
    error = error_of(openai.BadRequestError, lambda: client.chat.completions.create(model="chat", messages=ASK, max_tokens=-1))
    assert error.type == "invalid_request_error"
    return error.message


@check("unserved-endpoint")
def unserved_endpoint() -> str:
    calls: tuple[Callable[[], object], ...] = (
        lambda: client.images.generate(prompt="x", model="chat"),
        lambda: client.moderations.create(input="x"),
        lambda: client.audio.speech.create(model="chat", input="x", voice="alloy"),
        client.batches.list,
        client.fine_tuning.jobs.list,
    )
    messages = [error_of(openai.NotFoundError, call).message for call in calls]
    return messages[0]


@check("rate-limit")
def rate_limit() -> str:
    limited = with_key(HERE.limited_key).embeddings
    error = error_of(openai.RateLimitError, lambda: limited.create(model="minilm", input="x"), tries=TRIES)
    assert int(error.response.headers["retry-after"]) > 0
    assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
    return f"{error.code}: {error.message}"


if __name__ == "__main__":
    check.run()
