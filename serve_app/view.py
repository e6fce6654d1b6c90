"""RoutingView: the routing document compiled for quick look-ups."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve_app.config import ApiKeyConfig, PipelineConfig, PipelineVersionConfig
from serve_app.contracts import Hit
from serve_app.errors import Forbidden, Unauthenticated, UnknownModel
from serve_app.prompts import Passage, compile_prompt, render_prompt
from serve_app.rollout.document import RoutedModel, RoutingDocument
from serve_app.rollout.table import BucketRange, pick, ranges

if TYPE_CHECKING:
    from jinja2 import Template

ANONYMOUS = ApiKeyConfig(name="anonymous", sha256="0" * 64, admin=True)  # the caller where no keys are configured


@dataclass(frozen=True, slots=True)
class Prompt:
    """A compiled prompt template."""

    template: Template

    def render(self, question: str, hits: Sequence[Hit]) -> str:
        """Return the user message that asks ``question`` over ``hits``."""
        numbered = [Passage(i, _title(hit), hit.chunk.text) for i, hit in enumerate(hits, start=1)]
        return render_prompt(self.template, question, numbered)


def _title(hit: Hit) -> str:
    return " > ".join((hit.chunk.title, *hit.chunk.headings[-1:]))


def key_digest(authorization: str | None) -> str:
    """Return the SHA-256, in hexadecimal, of the API key in an Authorization header. Raises Unauthenticated without one."""
    scheme, _, key = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise Unauthenticated("no API key; send it as `Authorization: Bearer KEY`")
    return hashlib.sha256(key.strip().encode()).hexdigest()


class RoutingView:
    """One version of the routing document; replaced as a whole when a new one arrives.

    Raises:
        ValueError: the document cannot be put in force; the message says why.
    """

    def __init__(self, document: RoutingDocument) -> None:
        self.document = document
        self.models = {m.name: m for m in document.models}
        self.pipelines = {p.name: p for p in document.pipelines}
        self.embedders = frozenset(document.embedders)
        self._keys = {key.sha256: key for key in document.auth.keys}
        self._tables: dict[str, tuple[BucketRange, ...]] = {m.name: ranges(m.weights) for m in document.models}
        for p in document.pipelines:
            self._tables[p.name] = ranges([(v.name, v.weight) for v in p.versions])
        versions = [(p.name, v) for p in document.pipelines for v in p.versions]
        self._prompts = {(name, v.name): Prompt(compile_prompt(v.prompt)) for name, v in versions}

    def authenticate(self, authorization: str | None) -> ApiKeyConfig:
        """Return who calls. Raises Unauthenticated when keys are configured and this is none of them."""
        if not self._keys:
            return ANONYMOUS
        # A look-up by digest does not leak the key through its timing.
        caller = self._keys.get(key_digest(authorization))
        if caller is None:
            raise Unauthenticated("this API key is not known here")
        return caller

    def authorize(self, caller: ApiKeyConfig, name: str) -> None:
        """Raise UnknownModel or Forbidden unless the caller may use this model, pipeline or embedder."""
        if name not in self.models and name not in self.pipelines and name not in self.embedders:
            raise UnknownModel(name)
        if not self.may_use(caller, name):
            raise Forbidden(f"this API key may not use model {name!r}", param="model")

    def authorize_admin(self, caller: ApiKeyConfig) -> None:
        """Raise Forbidden unless the caller may see how the platform is doing."""
        if not caller.admin:
            raise Forbidden("this API key may not read the platform's status; it needs `admin: true`")

    def may_use(self, caller: ApiKeyConfig, name: str) -> bool:
        """Whether the caller's key covers the name."""
        return caller.models is None or name in caller.models

    def variant(self, model: RoutedModel, affinity: str) -> str:
        """Return the variant that owns this conversation."""
        return pick(self._tables[model.name], affinity)

    def version(self, pipeline: PipelineConfig, affinity: str) -> tuple[PipelineVersionConfig, Prompt]:
        """Return the pipeline version that owns this conversation, with its prompt."""
        name = pick(self._tables[pipeline.name], affinity)
        version = next(v for v in pipeline.versions if v.name == name)
        return version, self._prompts[pipeline.name, name]
