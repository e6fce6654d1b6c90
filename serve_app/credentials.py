"""API keys: what clients send, how it is kept, and whose it is."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from serve_app.config_auth import ApiKeyConfig
from serve_app.errors import Unauthenticated

PREFIX = "manta"
SALT_BYTES = 16
SECRET_BYTES = 32
# What an unknown name is compared with, so that it costs what a known one does.
_NOBODY = f"sha256:{'0' * 2 * SALT_BYTES}:{'0' * 64}"

WallClock = Callable[[], datetime]


def wall_clock() -> datetime:
    """Return the time of day, in UTC."""
    return datetime.now(UTC)


def new_key(name: str) -> str:
    """Return a fresh key for a record of this name."""
    return f"{PREFIX}_{name}_{secrets.token_urlsafe(SECRET_BYTES)}"


def hash_of(key: str, *, salt: bytes | None = None) -> str:
    """Return what is stored of a key: the salt, a new one by default, and the digest of salt and key."""
    salt = secrets.token_bytes(SALT_BYTES) if salt is None else salt
    return f"sha256:{salt.hex()}:{hashlib.sha256(salt + key.encode('utf-8', 'surrogatepass')).hexdigest()}"


def only(values: Iterable[str]) -> str | None:
    """Return the one value of a header, None without one. Raises Unauthenticated when it came twice and differs."""
    different = set(values)
    if len(different) > 1:  # what stands before us may have checked another than we would
        raise _two_keys()
    return next(iter(different), None)


def credential(authorization: str | None, x_api_key: str | None) -> str | None:
    """Return the key in `Authorization: Bearer KEY` or, as Anthropic's SDKs send it, `x-api-key: KEY`; None without one.

    Raises:
        Unauthenticated: another scheme than Bearer, a scheme without a key, or two keys that differ.
    """
    bearer = None
    if authorization is not None:
        scheme, _, key = authorization.partition(" ")
        bearer = key.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise _missing()
    offered = (x_api_key or "").strip() or None
    if bearer is not None and offered is not None and bearer != offered:
        raise _two_keys()
    return bearer or offered


class KeyRing:
    """The keys in force, found by the name in them."""

    def __init__(self, keys: Iterable[ApiKeyConfig], *, now: WallClock = wall_clock) -> None:
        self._records = {record.name: record for record in keys}
        self._now = now

    def find(self, key: str | None) -> ApiKeyConfig:
        """Return whose key it is. Raises Unauthenticated: no key, one that nobody issued, or one that has expired."""
        if key is None:
            raise _missing()
        prefix, _, rest = key.partition("_")
        record = self._records.get(rest.partition("_")[0]) if prefix == PREFIX else None
        kept = _NOBODY if record is None else record.hash
        offered = hash_of(key, salt=bytes.fromhex(kept.split(":")[1]))
        # The digests' comparison takes as long wherever they differ.
        if not hmac.compare_digest(offered, kept) or record is None:
            raise Unauthenticated("this API key is not known here")
        if record.expires_at is not None and record.expires_at <= self._now():
            raise Unauthenticated("this API key has expired; ask for a new one")
        return record


def _two_keys() -> Unauthenticated:
    return Unauthenticated("two different API keys came with the request; send one")


def _missing() -> Unauthenticated:
    return Unauthenticated("no API key; send it as `Authorization: Bearer KEY`")
