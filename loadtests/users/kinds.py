"""Which function asks for what."""

from __future__ import annotations

from collections.abc import Mapping

from loadtests.scenario import Entry, Kind
from loadtests.users import ingest, rest
from loadtests.users.session import Perform, Session, Task


def perform(session: Session, entry: Entry, task: Task) -> None:
    """Do what a part of the mix says, once."""
    PERFORM[entry.kind](session, entry, task)


def _grpc_chat(session: Session, entry: Entry, task: Task) -> None:
    from loadtests.users import grpc_calls  # gRPC costs memory and threads in every worker, so only where it is asked for

    grpc_calls.chat(session, entry, task)


def _grpc_ask(session: Session, entry: Entry, task: Task) -> None:
    from loadtests.users import grpc_calls

    grpc_calls.ask(session, entry, task)


PERFORM: Mapping[Kind, Perform] = {
    Kind.CHAT: rest.chat,
    Kind.COMPLETION: rest.complete,
    Kind.EMBEDDING: rest.embed,
    Kind.RAG: rest.ask,
    Kind.CONVERSATION: rest.converse,
    Kind.INGEST: ingest.ingest,
    Kind.GRPC_CHAT: _grpc_chat,
    Kind.GRPC_ASK: _grpc_ask,
}
