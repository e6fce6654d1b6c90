"""Requests: from proto messages to the JSON bodies of the REST API, which engines and pipelines read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from serve_app.errors import BadRequest
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2

Json = dict[str, Any]

ROLES: dict[int, str] = {
    chat_pb2.ROLE_SYSTEM: "system",
    chat_pb2.ROLE_DEVELOPER: "developer",
    chat_pb2.ROLE_USER: "user",
    chat_pb2.ROLE_ASSISTANT: "assistant",
    chat_pb2.ROLE_TOOL: "tool",
}
TOOL_MODES: dict[int, str] = {
    chat_pb2.TOOL_MODE_AUTO: "auto",
    chat_pb2.TOOL_MODE_NONE: "none",
    chat_pb2.TOOL_MODE_REQUIRED: "required",
}
# Fields whose names are those of the REST API.
_SAMPLING = tuple(name for name in common_pb2.Sampling.DESCRIPTOR.fields_by_name if name not in ("stop", "logit_bias"))
_STREAMED: Json = {"stream": True, "stream_options": {"include_usage": True}}
# Members of a body that have a field: `extra` would be a second place for them.
_SAMPLING_MEMBERS = frozenset(common_pb2.Sampling.DESCRIPTOR.fields_by_name)
_PLATFORM_MEMBERS = _SAMPLING_MEMBERS | _STREAMED.keys()
_CHAT_MEMBERS = _PLATFORM_MEMBERS | set(chat_pb2.ChatRequest.DESCRIPTOR.fields_by_name)
_ASK_MEMBERS = _PLATFORM_MEMBERS | set(chat_pb2.AskRequest.DESCRIPTOR.fields_by_name) | {"messages"}
_GENERATE_MEMBERS = _PLATFORM_MEMBERS | set(inference_pb2.GenerateRequest.DESCRIPTOR.fields_by_name)
_EXACT = 2**53  # whole numbers below are exact in a double, which is all that a Struct has


def chat_body(request: chat_pb2.ChatRequest) -> Json:
    """Return the body of a chat. Raises BadRequest naming the field at fault."""
    body: Json = {"model": request.model, "messages": [_message(m, f"messages[{i}]") for i, m in enumerate(request.messages)]}
    body |= _sampling(request.sampling) | _optional(request, "parallel_tool_calls", "top_logprobs")
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.HasField("tool_choice"):
        body |= _tool_choice(request.tool_choice)
    if request.HasField("response_format"):
        body |= _response_format(request.response_format)
    if request.logprobs:
        body["logprobs"] = True
    return _with_rest(body, request, _CHAT_MEMBERS) | _STREAMED


def ask_body(request: chat_pb2.AskRequest) -> Json:
    """Return the body of a chat with a pipeline. Raises BadRequest naming the field at fault."""
    if not request.question.strip():
        raise BadRequest("question must be a non-empty string", param="question")
    history = [_message(m, f"history[{i}]") for i, m in enumerate(request.history)]
    body: Json = {"model": request.model, "messages": [*history, {"role": "user", "content": request.question}]}
    body |= _sampling(request.sampling)
    if request.HasField("retrieval"):
        body["retrieval"] = _retrieval(request.retrieval)
    return _with_rest(body, request, _ASK_MEMBERS) | _STREAMED


def generate_body(request: inference_pb2.GenerateRequest) -> Json:
    """Return the body of a completion. Raises BadRequest naming the field at fault."""
    body: Json = {"model": request.model, "prompt": request.prompt}
    body |= _sampling(request.sampling) | _optional(request, "logprobs", "echo")
    return _with_rest(body, request, _GENERATE_MEMBERS) | {"stream": False}


def embeddings_body(request: inference_pb2.EmbedRequest) -> Json:
    """Return the body of a request for embeddings."""
    body = {"model": request.model, "input": list(request.input), "encoding_format": "float"}
    return body | _optional(request, "dimensions")


def struct_json(struct: Struct, param: str) -> Json:
    """Return a Struct as JSON; whole numbers are whole. Raises BadRequest naming a number that JSON has no form for."""
    return {name: _value_json(value, f"{param}.{name}") for name, value in struct.fields.items()}


def json_bytes(body: Mapping[str, Any]) -> bytes:
    """Return a body as sent to engines. Raises BadRequest for numbers that JSON has no form for."""
    try:
        return json.dumps(body, allow_nan=False).encode()
    except ValueError as err:
        raise BadRequest("sampling takes finite numbers only", param="sampling") from err


def _value_json(value: Value, param: str) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return struct_json(value.struct_value, param)
    if kind == "list_value":
        return [_value_json(item, f"{param}[{i}]") for i, item in enumerate(value.list_value.values)]
    if kind == "number_value":
        return _number(value.number_value, param)
    return None if kind in (None, "null_value") else getattr(value, kind)


def _number(number: float, param: str) -> float:
    if number.is_integer() and abs(number) <= _EXACT:
        return int(number)
    if not math.isfinite(number):
        raise BadRequest(f"{param} must be a finite number", param=param)
    return number


def _optional(message: Message, *names: str) -> Json:
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def _with_rest(body: Json, request: Any, members: Iterable[str]) -> Json:
    """Return the body with the end user and with what has no field."""
    if request.user:
        body["user"] = request.user
    for name in request.extra.fields:
        if name in members:
            param = f"extra.{name}"
            raise BadRequest(f"{param} has a field of its own, or is set by the platform; leave it out here", param=param)
    return body | struct_json(request.extra, "extra")


def _sampling(sampling: common_pb2.Sampling) -> Json:
    body = _optional(sampling, *_SAMPLING)
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        body["logit_bias"] = dict(sampling.logit_bias)
    return body


def _retrieval(retrieval: chat_pb2.Retrieval) -> Json:
    body = _optional(retrieval, "top_k")
    if retrieval.HasField("filters"):
        body["filters"] = struct_json(retrieval.filters, "retrieval.filters")
    if retrieval.collection:
        body["collection"] = retrieval.collection
    return body


def _message(message: chat_pb2.ChatMessage, param: str) -> Json:
    role = ROLES.get(message.role)
    if role is None:
        raise BadRequest(f"{param}.role must be one of {', '.join(chat_pb2.Role.keys()[1:])}", param=f"{param}.role")
    body: Json = {"role": role, "content": _content(message.content, f"{param}.content")}
    if message.name:
        body["name"] = message.name
    if message.tool_calls:
        body["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        body["tool_call_id"] = message.tool_call_id
    return body


def _content(parts: Any, param: str) -> str | list[Json] | None:
    # One text is a plain string, as clients of REST send it: the conversation's variant and prompt must be the same.
    if len(parts) == 1 and parts[0].WhichOneof("part") == "text":
        return str(parts[0].text)
    return [_part(part, f"{param}[{i}]") for i, part in enumerate(parts)] or None


def _part(part: chat_pb2.ContentPart, param: str) -> Json:
    match part.WhichOneof("part"):
        case "text":
            return {"type": "text", "text": part.text}
        case "image_url":
            detail = {"detail": part.image_url.detail} if part.image_url.detail else {}
            return {"type": "image_url", "image_url": {"url": part.image_url.url, **detail}}
        case "other":
            return struct_json(part.other, f"{param}.other")
    raise BadRequest(f"{param} must have one of text, image_url, other", param=param)


def _tool_call(call: chat_pb2.ToolCall) -> Json:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(tool: chat_pb2.Tool) -> Json:
    function: Json = {"name": tool.name} | _optional(tool, "strict")
    if tool.description:
        function["description"] = tool.description
    if tool.HasField("parameters"):
        function["parameters"] = struct_json(tool.parameters, "tools.parameters")
    return {"type": "function", "function": function}


def _tool_choice(choice: chat_pb2.ToolChoice) -> Json:
    if choice.WhichOneof("choice") == "name":
        return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}
    mode = TOOL_MODES.get(choice.mode)
    return {} if mode is None else {"tool_choice": mode}


def _response_format(form: chat_pb2.ResponseFormat) -> Json:
    if form.WhichOneof("format") == "json_schema":
        schema: Json = {"name": form.json_schema.name} | _optional(form.json_schema, "strict")
        schema["schema"] = struct_json(form.json_schema.schema, "response_format.json_schema.schema")
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": {"type": "json_object"}} if form.HasField("json_object") else {}
