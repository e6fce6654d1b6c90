"""The whole front on a port of this process, over fakes; tests/integration/test_fuzz.py does the same on real Ray."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serve_app.documents.service import DocumentService
from serve_app.gateway import Gateway
from serve_app.inference import Inference
from serve_app.rest import files, vector_stores
from serve_app.rest.app import RestApp
from serve_app.rest.edge import HeaderGate
from tests.fuzzing import Target, fuzz_bodies, fuzz_document
from tests.unit.serve_app.documents.platform import LetterEmbedder
from tests.unit.serve_app.documents.platform import made as document_service
from tests.unit.serve_app.fakes import SSE, FakeResponse, leases_of, upstream_of
from tests.unit.serve_app.rest.front import ready, report

EXAMPLES = 4  # for each operation, of good and of bad requests each


def answering() -> Gateway:
    """Return a gateway whose replica answers everything."""

    async def answer() -> FakeResponse:
        if b'"stream": true' in upstream_of(over).requests[-1].body:
            return FakeResponse((b"data: {}\n\n", b"data: [DONE]\n\n"), content_type=SSE)
        return FakeResponse()

    over = ready(answer, vector_stores={"embedder": "letters", "max_file_bytes": 4096})
    return over


@pytest.fixture
def made() -> Gateway:
    return answering()


class Opened:
    """The front with uploads and vector stores, which are opened on the server's event loop."""

    def __init__(self, inference: Inference, documents: DocumentService) -> None:
        more = [*files.routes(inference, documents), *vector_stores.routes(inference, documents)]
        self._app = HeaderGate(RestApp(inference, report=report, more=more))
        self._documents = documents

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        await receive()
        await self._documents.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._documents.close()
        await send({"type": "lifespan.shutdown.complete"})


@pytest.fixture
def target(made: Gateway, tmp_path: Path) -> Iterator[Target]:
    documents = document_service(tmp_path, embedder=LetterEmbedder(), max_file_bytes=4096)
    server = uvicorn.Server(uvicorn.Config(Opened(Inference(made), documents), port=0, log_level="critical", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with Target(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}") as opened:
        yield opened
    server.should_exit = True
    thread.join()


@pytest.mark.timeout(240)
def test_answers_are_as_the_document_says(target: Target, made: Gateway) -> None:
    assert fuzz_document(target, examples=EXAMPLES) > 200
    assert (leases_of(made), made.pool.waiting()) == (0, 0)


@pytest.mark.timeout(240)
def test_no_body_makes_a_server_fail(target: Target, made: Gateway) -> None:
    assert fuzz_bodies(target, examples=4 * EXAMPLES) > 200
    assert (leases_of(made), made.pool.waiting()) == (0, 0)
