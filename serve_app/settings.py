"""Process environment: what is secret or differs per process. Read once, when a replica or command starts."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

INTERNAL_TOKEN = "MANTA_INTERNAL_TOKEN"  # noqa: S105  (the variable's name, not its value)
LOCAL_ONLY = "MANTA_LOCAL_ONLY"  # set by ``apps.build_schema`` for a platform that listens on a loopback address
REPLICA_HOST = "MANTA_REPLICA_HOST"  # set by ``LocalCluster``: its Routers and replicas share one machine

MIN_FREE_DISK_GIB = 2.0  # logs, sockets and Ray's object store of a local run


@dataclass(frozen=True, slots=True)
class Settings:
    """What a Manta process takes from its environment."""

    internal_token: str  # bearer token that Routers present to LLM replicas
    is_local_only: bool = False  # gRPC calls from other machines are refused
    replica_host: str | None = None  # address that LLM replicas listen on; the node's own by default

    def __repr__(self) -> str:
        return "Settings(internal_token=<hidden>)"


def read_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process.

    Raises:
        RuntimeError: a variable is missing.
    """
    env = os.environ if env is None else env
    token = env.get(INTERNAL_TOKEN, "")
    if len(token) < 16:
        raise RuntimeError(
            f"{INTERNAL_TOKEN} must hold at least 16 characters in the environment of every Ray node; "
            f"`manta run` makes one, the Helm chart takes it from a Secret"
        )
    return Settings(internal_token=token, is_local_only=env.get(LOCAL_ONLY) == "1", replica_host=env.get(REPLICA_HOST) or None)


def new_token() -> str:
    """Return a fresh internal token."""
    return secrets.token_urlsafe(32)
