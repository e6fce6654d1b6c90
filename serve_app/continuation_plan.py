"""Plan: whether a stream may go on at another replica when its own fails, and what that one is asked.

A request may go on where the tokens so far are all that its engine knows of it. Fields that are not named here make it one
that may not: a field that nobody has looked at must not give an answer that is subtly another one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
COMPLETION_TOKENS = 16  # of a completion that says no limit, as OpenAI and vLLM have it

# What each token is chosen by, and how it becomes text: the same for all tokens, so the other replica gets it as it is.
_KEPT = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "stop", "stop_token_ids"),
        *("include_stop_str_in_output", "ignore_eos", "skip_special_tokens", "spaces_between_special_tokens"),
        *("allowed_token_ids", "logit_bias", "priority", "session_id", "cache_salt", "stream_interval", "user", "model"),
    )
)
# What a token's number counts for; what is left of it is asked for.
_COUNTED = frozenset(("max_tokens", "max_completion_tokens", "min_tokens"))
# What makes the prompt's tokens, which are known by then, and what engines do nothing with.
_SPENT = frozenset(
    (
        *("messages", "prompt", "chat_template", "chat_template_kwargs", "add_generation_prompt", "continue_final_message"),
        *("documents", "add_special_tokens", "truncate_prompt_tokens", "truncation_side", "reasoning_effort"),
        *("stream", "stream_options", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("request_id", "return_token_ids", "return_prompt_text", "parallel_tool_calls"),
    )
)
# What is remembered from token to token, unless it says that it is off. (Presence and frequency penalties count generated
# tokens only, and those before the failure would be the prompt's; the repetition penalty counts both.)
_OFF: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "length_penalty": (1,),
    "use_beam_search": (False,),
    "include_reasoning": (True,),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "bad_words": ([],),
    "response_format": ({"type": "text"},),
}


class Plan:
    """A request whose stream may go on elsewhere, by the body that its engine gets.

    Attributes:
        is_greedy: the same tokens come again when they are asked for again.
        wants_ids: the client itself asked for token ids.
        held_chars: characters at the end of the text so far that the engine holds back: they may begin a stop text.
        margin_chars: characters at its end that may begin one, held back or not.
        max_tokens: the answer's limit; None where it is the model's context.
    """

    def __init__(self, body: Mapping[str, Any], *, is_chat: bool) -> None:
        self.body = body
        self.is_chat = is_chat
        self.is_greedy = _is_number(body.get("temperature")) and body["temperature"] == 0
        self.wants_ids = body.get("return_token_ids") is True
        stops = [body["stop"]] if isinstance(body.get("stop"), str) else body.get("stop") or []
        self.margin_chars = max((len(stop) - 1 for stop in stops), default=0)
        self.held_chars = 0 if body.get("include_stop_str_in_output") else self.margin_chars
        self.max_tokens = _limit(body, is_chat=is_chat)
        options = body.get("stream_options")
        self.wants_usage = isinstance(options, dict) and options.get("include_usage") is True

    def request(self, prompt: list[int], said: list[int], *, room_tokens: int | None) -> dict[str, Any] | None:
        """Return the body of a completion that goes on after ``said``; None where nobody knows how much is left.

        Args:
            prompt: the prompt's tokens.
            said: the answer's tokens so far.
            room_tokens: what the model's context holds, if that is known.
        """
        tokens = [*prompt, *said]
        if self.max_tokens is not None:
            left = self.max_tokens - len(said)
        elif room_tokens is not None:
            left = room_tokens - len(tokens)
        else:
            return None
        if left < 1:
            return None
        body = {name: value for name, value in self.body.items() if name in _KEPT and value is not None}
        if (fewest := self.body.get("min_tokens") or 0) > len(said):
            body["min_tokens"] = fewest - len(said)
        if self.body.get("stream_options") is not None:
            body["stream_options"] = self.body["stream_options"]
        return {**body, "prompt": tokens, "max_tokens": left, "stream": True, "return_token_ids": True}


def plan_of(path: str, body: Mapping[str, Any]) -> Plan | None:
    """Return the plan of a request, by its path and the body that its engine gets; None: it may not go on elsewhere."""
    endpoint = path.partition("?")[0]
    if endpoint not in (CHAT, COMPLETIONS) or body.get("stream") is not True:
        return None
    if not all(_is_free_of_memory(name, value) for name, value in body.items()):
        return None
    if not (_is_text(body.get("messages")) if endpoint == CHAT else _is_single(body.get("prompt"))):
        return None
    counts = (body.get(name) for name in _COUNTED)
    if not all(count is None or _is_count(count) for count in counts) or not _are_texts(body.get("stop")):
        return None  # the engine says what is wrong
    return Plan(body, is_chat=endpoint == CHAT)


def _is_free_of_memory(name: str, value: object) -> bool:
    if value is None or name in _KEPT or name in _COUNTED or name in _SPENT:
        return True
    return any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in _OFF.get(name, ()))  # False is 0


def _is_text(messages: object) -> bool:
    """Whether a chat's prompt is text only: images and sounds are more than the tokens that stand for them."""
    return isinstance(messages, list) and all(isinstance(each, dict) and _has_text_only(each) for each in messages)


def _has_text_only(message: Mapping[str, Any]) -> bool:
    parts = message.get("content")
    return not isinstance(parts, list) or all(isinstance(part, dict) and part.get("type") == "text" for part in parts)


def _is_single(prompt: object) -> bool:
    """Whether a completion has one prompt: a text, token ids, or a list of one of these."""
    if isinstance(prompt, list) and len(prompt) == 1 and not _is_count(prompt[0]):
        prompt = prompt[0]
    return isinstance(prompt, str) or (isinstance(prompt, list) and bool(prompt) and all(map(_is_count, prompt)))


def _are_texts(stop: object) -> bool:
    return stop is None or isinstance(stop, str) or (isinstance(stop, list) and all(isinstance(each, str) for each in stop))


def _limit(body: Mapping[str, Any], *, is_chat: bool) -> int | None:
    names = ("max_completion_tokens", "max_tokens") if is_chat else ("max_tokens",)
    given = (body[name] for name in names if body.get(name) is not None)
    return next(given, None if is_chat else COMPLETION_TOKENS)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
