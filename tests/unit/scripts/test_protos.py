"""The generated modules are those of the .proto files, and the files keep buf's STANDARD rules (buf itself: docs)."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor

from scripts.protos import PROTOS, generated, write
from serve_app.protos.manta.v1 import chat_pb2, common_pb2, inference_pb2

ROOT = Path(__file__).resolve().parents[3]
FILES: tuple[FileDescriptor, ...] = tuple(m.DESCRIPTOR for m in (chat_pb2, common_pb2, inference_pb2))


@pytest.fixture(scope="module")
def made() -> dict[Path, str]:
    return generated(ROOT)


def test_what_is_committed_is_what_protoc_makes(made: dict[Path, str]) -> None:
    stale = [str(path) for path, text in made.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert stale == [], "run `make proto`"


def test_nothing_is_left_of_files_that_are_gone(made: dict[Path, str]) -> None:
    assert {path.relative_to(ROOT) for path in (ROOT / PROTOS).rglob("*_pb2*.py*") if "__pycache__" not in path.parts} == set(
        made
    )


def test_only_what_is_stale_is_written(tmp_path: Path) -> None:
    folder = tmp_path / PROTOS / "manta" / "v1"
    folder.mkdir(parents=True)
    for source in (ROOT / PROTOS).rglob("*.proto"):
        (folder / source.name).write_bytes(source.read_bytes())
    assert len(write(tmp_path)) == 7
    (folder / "chat_pb2.py").write_text("edited by hand", encoding="utf-8")
    assert write(tmp_path) == [PROTOS / "manta" / "v1" / "chat_pb2.py"]


def test_a_broken_file_is_no_package(tmp_path: Path) -> None:
    (tmp_path / PROTOS).mkdir(parents=True)
    (tmp_path / PROTOS / "x.proto").write_text("message", encoding="utf-8")
    with pytest.raises(RuntimeError, match="protoc"):
        generated(tmp_path)


def enums(parent: FileDescriptor | Descriptor) -> Iterator[EnumDescriptor]:
    yield from parent.enum_types_by_name.values()
    for message in messages(parent):
        yield from message.enum_types


def messages(parent: FileDescriptor | Descriptor) -> Iterator[Descriptor]:
    inner = parent.message_types_by_name.values() if isinstance(parent, FileDescriptor) else parent.nested_types
    for message in inner:
        yield message
        yield from messages(message)


def test_enums_have_prefixes_and_begin_with_unspecified() -> None:
    for enum in (enum for file in FILES for enum in enums(file)):
        prefix = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", enum.name).upper()
        names = [value.name for value in enum.values]
        assert names[0] == f"{prefix}_UNSPECIFIED"
        assert all(name.startswith(f"{prefix}_") for name in names)


def test_fields_are_in_lower_snake_case() -> None:
    fields = [field.name for file in FILES for message in messages(file) for field in message.fields]
    assert [name for name in fields if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)] == []


def test_every_rpc_has_messages_of_its_own() -> None:
    [service] = inference_pb2.DESCRIPTOR.services_by_name.values()
    assert [(m.input_type.name, m.output_type.name) for m in service.methods] == [
        (f"{m.name}Request", f"{m.name}Response") for m in service.methods
    ]


def test_everything_is_commented() -> None:
    bare = []
    for source in sorted((ROOT / PROTOS).rglob("*.proto")):
        lines = source.read_text(encoding="utf-8").splitlines()
        for before, line in itertools.pairwise(lines):
            declares = re.match(
                r"\s*(message|enum|service|rpc|oneof|(repeated |optional )?[\w.<>, ]+ \w+ = \d+;|[A-Z_]+ = \d+;)", line
            )
            if declares and not before.strip().startswith("//"):
                bare.append(f"{source.name}: {line.strip()}")
    assert bare == []
