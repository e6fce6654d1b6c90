"""AuthConfig: who may call, and how much."""

from __future__ import annotations

from typing import Any

from pydantic import AwareDatetime, Field, model_validator

from serve_app.config_fields import Config, Name, PublicName, Text
from serve_app.config_rules import PlacedError

KEY_HASH = r"^sha256:[0-9a-f]{32}:[0-9a-f]{64}$"


class ApiKeyConfig(Config):
    """One key and what its caller may do. Only a salted hash is configured; the key itself is never stored.

    A fast hash is right here: a key holds 256 random bits, so that nobody guesses it, however fast a guess is; slow
    hashes are for passwords, and would cost each request milliseconds of CPU.
    """

    name: Name = Field(description="Name of the key: the middle of `manta_<name>_<secret>`, and what limits are counted by.")
    tenant: Name | None = Field(None, description="Tenant that owns what the key makes; by default the key's name.")
    hash: str = Field(pattern=KEY_HASH, description="`sha256:<salt>:<digest>`, as `manta keys create` prints it.")
    models: tuple[PublicName, ...] | None = Field(
        None, description="Models, adapters (`MODEL:ADAPTER`, each by itself) and pipelines it may use; absent means all."
    )
    collections: tuple[Text, ...] | None = Field(
        None, description="Collections and vector stores it may search; absent means its tenant's and the configured ones."
    )
    admin: bool = Field(False, description="May read /admin/status, and read and command rollouts.")
    requests_per_minute: int | None = Field(None, ge=1, description="Requests a minute, over all Routers; absent: no limit.")
    tokens_per_minute: int | None = Field(
        None, ge=1, description="Tokens a minute, of prompts and answers together; absent: no limit."
    )
    concurrent_requests: int | None = Field(None, ge=1, description="Requests open at the same time; absent: no limit.")
    priority: int = Field(5, ge=0, le=9, description="Who goes first while requests wait for a replica: higher before lower.")
    expires_at: AwareDatetime | None = Field(None, description="Time, with its zone, from which the key is refused.")

    @model_validator(mode="before")
    @classmethod
    def _no_bare_digest(cls, data: Any) -> Any:
        if isinstance(data, dict) and "sha256" in data:
            message = "unsalted digests are no longer accepted; make a new key with `manta keys create NAME`, use its `hash`"
            raise PlacedError([(("sha256",), message)])
        return data

    @property
    def tenant_name(self) -> str:
        """Whose key it is."""
        return self.tenant or self.name


class AuthConfig(Config):
    """Who may call."""

    keys: tuple[ApiKeyConfig, ...] = Field((), description="Accepted keys. None, here and in `keys_file`: none is asked for.")
    keys_file: Text | None = Field(
        None,
        description="YAML file (or mounted Secret) with a list `keys`, followed without a restart; while it holds no key, "
        "nobody is let in by it.",
    )
    allow_anonymous: bool = Field(
        False, description="Serve a public address although no keys are configured: whoever reaches it may do everything."
    )

    @property
    def is_on(self) -> bool:
        """Whether callers must show a key; with an empty file of keys nobody gets in."""
        return bool(self.keys) or self.keys_file is not None
