from __future__ import annotations

from typing import Any

import pytest

from serve_app.errors import Forbidden
from serve_app.inference import Inference
from serve_app.protos.manta.v1.inference_pb2 import ListModelsRequest
from serve_app.rpc.call import RpcCall
from tests.unit.serve_app.rpc.front import ready


class Context:
    """A call from ``peer``."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def invocation_metadata(self) -> None:
        return None

    def peer(self) -> str:
        return self._peer

    def set_code(self, code: Any) -> None: ...

    def set_details(self, details: str) -> None: ...

    def set_trailing_metadata(self, trailing_metadata: Any) -> None: ...


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:5", "ipv4:127.9.9.9:5", "ipv6:[::1]:5", "ipv6:%5B::1%5D:5", "unix:"])
def test_this_machine_may_call_a_local_platform(peer: str) -> None:
    RpcCall(Inference(ready()), Context(peer), is_local_only=True).read(b"", ListModelsRequest())


@pytest.mark.parametrize("peer", ["ipv4:10.0.0.5:5", "ipv6:[fe80::1]:5", "ipv6:%5B::ffff:10.0.0.5%5D:5", "", "ipv4:12.7.0.1:5"])
def test_other_machines_may_not(peer: str) -> None:
    with pytest.raises(Forbidden):
        RpcCall(Inference(ready()), Context(peer), is_local_only=True).read(b"", ListModelsRequest())
    RpcCall(Inference(ready()), Context(peer)).read(b"", ListModelsRequest())
