"""Records of uploads and vector stores: what is kept, as JSON, and how a file of a store moves from state to state."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from serve_app.errors import BadRequest
from serve_app.filters import Attributes

NS = 1_000_000_000
# Identifiers begin with their time, so that a page can start after an object that was deleted meanwhile.
_TIME_DIGITS = 16
_RANDOM_BYTES: Mapping[str, int] = MappingProxyType({"file-": 4, "vs_": 8, "vsfb_": 8})
ErrorCode = Literal["unsupported_file", "invalid_file", "server_error"]


def new_id(prefix: str, created_ns: int) -> str:
    """Return an identifier such as ``file-…``, ``vs_…`` or ``vsfb_…``, as long as OpenAI's."""
    return f"{prefix}{created_ns:0{_TIME_DIGITS}x}{secrets.token_hex(_RANDOM_BYTES[prefix])}"


def id_order(object_id: str) -> tuple[int, str]:
    """Return what identifiers are sorted by: time, then the identifier itself. Raises BadRequest for no identifier."""
    digits = object_id[object_id.find("_") + 1 :] if "_" in object_id else object_id.partition("-")[2]
    try:
        return int(digits[:_TIME_DIGITS], 16), object_id
    except ValueError as err:
        raise BadRequest(f"{object_id[:100]!r} is no identifier that was listed here", param="after") from err


class FileStatus(StrEnum):
    """Where a file of a vector store stands; the last three are final."""

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Chunking:
    """How a file was asked to be cut, in tokens of the embedder; None: as configured (`auto`)."""

    max_tokens: int
    overlap_tokens: int


@dataclass(frozen=True, slots=True)
class ExpiresAfter:
    """Days without use after which a vector store expires."""

    days: int


@dataclass(frozen=True, slots=True)
class FileRecord:
    """An upload."""

    id: str
    tenant: str
    created_ns: int
    filename: str
    purpose: str
    size_bytes: int
    expires_ns: int | None = None
    deleting: bool = False  # its content and its places in vector stores go next, even after a crash

    @property
    def key(self) -> str:
        """Where the record is kept."""
        return f"files/{self.id}/record.json"

    @property
    def content_key(self) -> str:
        """Where the bytes are kept; they are there before the record is."""
        return f"files/{self.id}/content"

    def is_gone(self, now_ns: int) -> bool:
        """Whether callers do not see it any more."""
        return self.deleting or (self.expires_ns is not None and now_ns >= self.expires_ns)


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """A vector store."""

    id: str
    tenant: str
    created_ns: int
    last_active_ns: int
    name: str = ""
    description: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    expires_after: ExpiresAfter | None = None
    deleting: bool = False

    @property
    def key(self) -> str:
        """Where the record is kept; the store is there when this is."""
        return f"stores/{self.id}/store.json"

    @property
    def expires_ns(self) -> int | None:
        """When it expires unless it is used before."""
        return None if self.expires_after is None else self.last_active_ns + self.expires_after.days * 86_400 * NS

    def is_expired(self, now_ns: int) -> bool:
        """Whether nobody used it for too long."""
        return self.expires_ns is not None and now_ns >= self.expires_ns


@dataclass(frozen=True, slots=True)
class StoreFileRecord:
    """A file in a vector store."""

    store_id: str
    file_id: str
    created_ns: int
    attempt: str  # tells one adding of the file from the next, so that work begun for the one never ends in the other
    filename: str
    attributes: Attributes = field(default_factory=dict)
    chunking: Chunking | None = None
    batch_id: str | None = None
    status: FileStatus = FileStatus.IN_PROGRESS
    usage_bytes: int = 0
    begun: int = 0  # how often work on it began; a file that stops the service every time is given up
    error_code: ErrorCode | None = None
    error_message: str = ""
    stale_attributes: bool = False  # the collection still has older ones
    removing: bool = False  # its chunks go next, even after a crash

    @property
    def id(self) -> str:
        """The file's identifier."""
        return self.file_id

    @property
    def key(self) -> str:
        """Where the record is kept."""
        return f"stores/{self.store_id}/files/{self.file_id}.json"

    def completed(self, usage_bytes: int) -> StoreFileRecord:
        """Return the record once the chunks are stored."""
        return replace(self, status=FileStatus.COMPLETED, usage_bytes=usage_bytes)

    def failed(self, code: ErrorCode, message: str) -> StoreFileRecord:
        """Return the record of a file that cannot be made searchable."""
        return replace(self, status=FileStatus.FAILED, error_code=code, error_message=message)

    def cancelled(self) -> StoreFileRecord:
        """Return the record of a file that is not waited for any more; one that is done stays done."""
        return replace(self, status=FileStatus.CANCELLED) if self.status is FileStatus.IN_PROGRESS else self


@dataclass(frozen=True, slots=True)
class BatchMember:
    """A file that a batch adds."""

    file_id: str
    attributes: Attributes = field(default_factory=dict)
    chunking: Chunking | None = None


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """Files added together. Written before its files are added and again after, so that a crash leaves no half batch."""

    id: str
    store_id: str
    created_ns: int
    members: tuple[BatchMember, ...]
    is_added: bool = False
    cancelled: bool = False

    @property
    def key(self) -> str:
        """Where the record is kept."""
        return f"stores/{self.store_id}/batches/{self.id}.json"


Record: TypeAlias = FileRecord | StoreRecord | StoreFileRecord | BatchRecord
_KINDS: Mapping[str, type[Record]] = MappingProxyType(
    {"file": FileRecord, "store": StoreRecord, "store_file": StoreFileRecord, "batch": BatchRecord}
)
_NAMES = MappingProxyType({kind: name for name, kind in _KINDS.items()})


def to_json(record: Record) -> bytes:
    """Return a record as a small JSON object."""
    return json.dumps({"record": _NAMES[type(record)], **_plain(record)}).encode()


def _plain(record: Record) -> dict[str, Any]:
    plain = {name: getattr(record, name) for name in record.__dataclass_fields__}
    plain |= {name: asdict(value) for name, value in plain.items() if isinstance(value, Chunking | ExpiresAfter)}
    if isinstance(record, BatchRecord):
        members = ((member, member.chunking) for member in record.members)
        plain["members"] = [[m.file_id, dict(m.attributes), c and [c.max_tokens, c.overlap_tokens]] for m, c in members]
    return plain


def from_json(data: bytes) -> Record:
    """Return the record that ``to_json`` wrote."""
    plain = json.loads(data)
    kind = _KINDS[plain.pop("record")]
    if kind is BatchRecord:
        plain["members"] = tuple(BatchMember(i, a, c and Chunking(*c)) for i, a, c in plain["members"])
    if plain.get("chunking"):
        plain["chunking"] = Chunking(**plain["chunking"])
    if plain.get("expires_after"):
        plain["expires_after"] = ExpiresAfter(**plain["expires_after"])
    if "status" in plain:
        plain["status"] = FileStatus(plain["status"])
    return kind(**plain)
