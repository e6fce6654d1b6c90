"""The configuration's part on RAG pipelines."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from serve_app.config_fields import Config, Name, PublicName, Text
from serve_app.config_rollouts import Duration, RolloutConfig, rollout_problems
from serve_app.config_rules import refuse, share_problems

NoPassages = Literal["answer", "refuse", "error"]
OnLate = Literal["fail", "skip"]


class OverridesConfig(Config):
    """What one request may change with its `retrieval` member."""

    max_top_k: int | None = Field(
        None, ge=1, le=100, description="Most passages a request may ask for; absent means no more than the version's `top_k`."
    )
    collections: tuple[Name, ...] = Field((), description="Other collections, filled by the same embedder, it may search.")
    vector_stores: bool = Field(
        False, description="Whether it may search a vector store of its tenant, if the version's embedder fills those."
    )
    filters: bool = Field(True, description="Whether it may filter by the documents' attributes.")


class CondenseConfig(Config):
    """A model turns a conversation's last question into one that can be searched for without the turns before it."""

    prompt: Text | None = Field(
        None, description="Jinja2 template over `question` and `history` (a file ending in .j2, or its text); absent: built in."
    )
    model: PublicName | None = Field(None, description="Model that writes the query; absent means the version's `model`.")
    max_tokens: int = Field(64, ge=8, le=1024, description="Longest query, in tokens.")
    history_turns: int = Field(6, ge=1, le=100, description="Latest messages before the question that the model sees.")
    timeout_s: float = Field(10.0, gt=0, description="Seconds after which the question is searched for as it is.")


class PipelineVersionConfig(Config):
    """One version of a RAG chain; its parts move together."""

    name: Name = Field(description="Name of the version, such as v1.")
    weight: int = Field(100, ge=0, le=100, description="Share of conversations in percent.")
    embedder: Name = Field(description="Embedder of the query; must be the one that filled the collection.")
    collection: Name = Field(description="Collection searched for passages.")
    top_k: int = Field(5, ge=1, le=100, description="Passages put into the prompt.")
    min_score: float | None = Field(
        None,
        ge=0,
        description="Passages that score less are dropped. Scores are sums of 1 / (60 + rank) over the dense and the word "
        "search: 0.0328 for the first of both, 0.0164 for the first of one.",
    )
    prompt: Text = Field(description="Jinja2 template: a file ending in .j2, or the template text itself.")
    model: PublicName = Field(description="Model, or adapter (`MODEL:ADAPTER`), that writes the answer.")
    variant: Name | None = Field(
        None, description="Variant of the model that always answers; absent: whichever the model's own weights choose."
    )
    condense: CondenseConfig | None = Field(
        None, description="Search for a query made from the whole conversation; absent means the last question as it is."
    )
    overrides: OverridesConfig = Field(default=OverridesConfig(), description="What one request may change.")
    retrieve_timeout: Annotated[Duration, Field(gt=0)] | None = Field(
        None,
        description="Longest time for the passages, such as 2s; absent: 30s. What is left of the request's deadline bounds it.",
    )
    retrieve_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Most that the passages may take of what is left of the request's deadline: 0.5 leaves half.",
    )
    on_late_retrieval: OnLate = Field(
        "fail",
        description="When no passages come in time, or nothing can search for them: fail with status 504 or 503, or let the "
        "model answer without any. The answer says so.",
    )
    no_passages: NoPassages = Field(
        "error", description="Without a passage: ask the model all the same, answer with `refusal`, or fail with status 409."
    )
    refusal: Text = Field(
        "I found nothing about that in the documents, so I cannot answer the question.",
        description="The answer under `no_passages: refuse`.",
    )

    @property
    def collections(self) -> tuple[str, ...]:
        """All configured collections that its requests may search."""
        return (self.collection, *self.overrides.collections)

    @model_validator(mode="after")
    def _a_request_may_have_the_default(self) -> Self:
        most = self.overrides.max_top_k
        if most is not None and most < self.top_k:
            refuse([(("overrides", "max_top_k"), f"max_top_k {most} is under the version's top_k {self.top_k}")])
        return self


class PipelineConfig(Config):
    """A RAG chain that clients call as if it were a model."""

    name: Name = Field(description="What clients send as `model`.")
    versions: tuple[PipelineVersionConfig, ...] = Field(min_length=1, description="Versions that share the traffic.")
    rollout: RolloutConfig | None = Field(None, description="Raise a version's share step by step, while its gates hold.")

    @model_validator(mode="after")
    def _versions_share_all_traffic(self) -> Self:
        refuse(share_problems("versions", self.versions))
        refuse(rollout_problems("versions", self.versions, self.rollout))
        return self
