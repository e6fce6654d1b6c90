from __future__ import annotations

from typing import Any

import pytest

from serve_app.config import LimitsConfig
from serve_app.errors import BadRequest, DeadlineExceeded
from serve_app.inference import Inference
from serve_app.protos.manta.v1 import chat_pb2
from serve_app.rpc.call import RpcCall
from serve_app.rpc.errors import error_of_event
from serve_app.rpc.servicer import InferenceRpc
from tests.unit.serve_app.fakes import FakeRetriever
from tests.unit.serve_app.rag.asking import pipeline, whole_answer
from tests.unit.serve_app.rpc.front import ready

CHAT = "/v1/chat/completions"
ASK = chat_pb2.AskRequest(model="docs", question="Why?").SerializeToString()


class ServesContext:
    """Serve's context: what it lacks, this one lacks."""

    def __init__(self, **metadata: str) -> None:
        self._metadata = [(name.replace("_", "-"), value) for name, value in metadata.items()]
        self.trailers: list[tuple[str, str | bytes]] = []

    def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
        return list(self._metadata)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def set_code(self, code: Any) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: list[tuple[str, str | bytes]]) -> None:
        self.trailers = trailing_metadata


class GrpcsContext(ServesContext):
    """gRPC's own context, of a call with a deadline."""

    def time_remaining(self) -> float:
        return 4.0


@pytest.mark.parametrize(
    ("context", "least_s", "most_s"),
    [(ServesContext(), 50.0, 60.0), (ServesContext(x_request_timeout_s="9"), 1.0, 9.0), (GrpcsContext(), 1.0, 4.0)],
    ids=["configured", "metadata", "grpcs-own"],
)
def test_a_calls_deadline_is_the_shortest_that_is_known(context: ServesContext, least_s: float, most_s: float) -> None:
    call = RpcCall(Inference(ready(limits=LimitsConfig(deadline_s=60.0))), context)
    call.read(b"", chat_pb2.ChatRequest())
    assert least_s < call.record.deadline.left_s() <= most_s


def test_a_timeout_in_the_metadata_that_cannot_be_read_is_refused() -> None:
    call = RpcCall(Inference(ready()), ServesContext(x_request_timeout_s="soon"))
    with pytest.raises(BadRequest, match="x-request-timeout-s"):
        call.read(b"", chat_pb2.ChatRequest())


async def test_an_answer_without_its_passages_says_so_at_its_end() -> None:
    retriever = FakeRetriever(error=DeadlineExceeded("late"))
    made = ready(whole_answer(CHAT), retriever=retriever, pipelines=(pipeline(on_late_retrieval="skip"),))
    context = ServesContext()
    messages = [message async for message in InferenceRpc(Inference(made)).Ask(ASK, context)]
    assert ([message.text for message in messages], dict(context.trailers)["x-manta-skipped"]) == (["It is."], "retrieval")


def test_a_stream_whose_time_was_over_ends_with_that_status() -> None:
    error = error_of_event({"error": {"message": "late", "code": "deadline_exceeded"}})
    assert (type(error), error.message) == (DeadlineExceeded, "late")
