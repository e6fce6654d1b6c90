"""Scenario: what a load test does, as one frozen document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from loadtests.scenario_lengths import Lengths
from serve_app.config_fields import Config, Name, PublicName, Text
from serve_app.config_rollouts import Duration
from serve_app.config_rules import PlacedError

Seconds = Annotated[Duration, Field(gt=0)]


class Mode(StrEnum):
    """Who decides when a request is sent."""

    OPEN = "open"  # a schedule, whatever the platform does: as many independent clients do
    CLOSED = "closed"  # users, each of whom waits for an answer before the next request


class ShapeKind(StrEnum):
    """How the load changes over time."""

    CONSTANT = "constant"
    STEP = "step"
    RAMP = "ramp"
    SPIKE = "spike"
    DIURNAL = "diurnal"
    REPLAY = "replay"


class Kind(StrEnum):
    """What a part of the mix asks for."""

    CHAT = "chat"
    COMPLETION = "completion"
    EMBEDDING = "embedding"
    RAG = "rag"
    CONVERSATION = "conversation"
    INGEST = "ingest"
    GRPC_CHAT = "grpc-chat"
    GRPC_ASK = "grpc-ask"


# kind -> (fields that it needs, fields that it may have besides)
SHAPE_FIELDS: Mapping[str, tuple[set[str], set[str]]] = {
    ShapeKind.CONSTANT: ({"level"}, {"cv"}),
    ShapeKind.STEP: ({"levels"}, {"cv"}),
    ShapeKind.RAMP: ({"level", "peak"}, {"steps", "cv", "stop_above"}),
    ShapeKind.SPIKE: ({"level", "peak"}, {"spike_at", "spike_for", "cv"}),
    ShapeKind.DIURNAL: ({"level", "peak"}, {"period", "cv"}),
    ShapeKind.REPLAY: ({"trace"}, {"speed"}),
}
_ALWAYS = {"kind", "name", "weight"}
_GENERATES = {"lengths", "unique", "shared_prefix_tokens", "temperature"}
KIND_FIELDS: Mapping[str, tuple[set[str], set[str]]] = {
    Kind.CHAT: ({"model"}, {"stream", *_GENERATES}),
    Kind.COMPLETION: ({"model"}, {"stream", *_GENERATES}),
    Kind.EMBEDDING: ({"model"}, {"lengths", "batch"}),
    Kind.RAG: ({"model"}, {"stream", "questions", "top_k", "lengths", "temperature"}),
    Kind.CONVERSATION: ({"model"}, {"stream", "turns", "think", *_GENERATES}),
    Kind.INGEST: (set(), {"lengths", "vector_store"}),
    Kind.GRPC_CHAT: ({"model"}, _GENERATES),
    Kind.GRPC_ASK: ({"model"}, {"questions", "top_k", "lengths", "temperature"}),
}


def _refuse_misfits(section: Config, table: Mapping[str, tuple[set[str], set[str]]], *, kind: str) -> None:
    """Raise PlacedError unless a section has the fields that its kind needs, and no others."""
    needed, allowed = table[kind]
    given = section.model_fields_set - _ALWAYS
    problems: list[tuple[tuple[str | int, ...], str]] = [
        ((field,), f"`kind: {kind}` needs it, but it is missing") for field in sorted(needed - given)
    ]
    fits = ", ".join(f"`{field}`" for field in sorted(needed | allowed))
    problems += [((field,), f"`kind: {kind}` has no use for it; it takes {fits}") for field in sorted(given - needed - allowed)]
    if problems:
        raise PlacedError(problems)


class Shape(Config):
    """How the load changes over time. A level is users (`mode: closed`) or requests per second (`mode: open`)."""

    kind: ShapeKind = Field(ShapeKind.CONSTANT, description="constant, step, ramp, spike, diurnal, or replay of a CSV file.")
    level: float = Field(1.0, gt=0, le=100_000, description="The level, or the one it begins with.")
    peak: float = Field(1.0, gt=0, le=100_000, description="The highest level of a ramp, spike or diurnal.")
    levels: tuple[Annotated[float, Field(gt=0, le=100_000)], ...] = Field(
        (), max_length=100, description="Levels of a step, each for an equal part of the duration."
    )
    steps: int = Field(8, ge=2, le=100, description="Steps of a ramp, from level to peak, each equally long.")
    stop_above: float | None = Field(
        None, gt=0, le=1, description="A ramp ends after a step with a greater share of failed requests."
    )
    spike_at: float = Field(0.4, ge=0, lt=1, description="When a spike begins, as a share of the duration.")
    spike_for: float = Field(0.2, gt=0, le=1, description="How long it lasts, as a share of the duration.")
    period: Seconds | None = Field(None, description="A diurnal's period; by default the duration.")
    trace: str = Field("", description="CSV file to replay, beside the scenario; it gives the lengths as well.")
    speed: float = Field(1.0, gt=0, le=1000, description="How many times faster than it was recorded a trace is replayed.")
    cv: float = Field(
        1.0,
        ge=0,
        le=20,
        description="Open loop: deviation of the times between requests over their mean; 1 is Poisson, 0 even.",
    )

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        _refuse_misfits(self, SHAPE_FIELDS, kind=self.kind)
        if self.kind is ShapeKind.REPLAY and not self.trace:
            raise PlacedError([(("trace",), "must not be empty")])
        if self.kind is ShapeKind.STEP and not self.levels:
            raise PlacedError([(("levels",), "must not be empty")])
        return self


class Load(Config):
    """How much is asked, and when."""

    mode: Mode = Field(description="open: requests arrive by a schedule; closed: users wait for their answers.")
    shape: Shape = Field(description="How the load changes over time.")
    think: Duration = Field(0.0, description="Closed loop: seconds that a user waits between an answer and the next request.")

    @model_validator(mode="after")
    def _mode_and_shape_fit(self) -> Self:
        problems: list[tuple[tuple[str | int, ...], str]] = []
        if self.mode is Mode.CLOSED and self.shape.kind is ShapeKind.REPLAY:
            problems.append((("shape", "kind"), "a trace says when requests arrive, so `replay` needs `mode: open`"))
        if self.mode is Mode.CLOSED and "cv" in self.shape.model_fields_set:
            problems.append((("shape", "cv"), "users make their own arrivals, so `cv` needs `mode: open`"))
        if self.mode is Mode.OPEN and self.think:
            problems.append((("think",), "nobody waits for answers in `mode: open`; leave it out"))
        if problems:
            raise PlacedError(problems)
        return self


class Entry(Config):
    """A part of the mix. Fields that its kind has no use for are refused."""

    kind: Kind = Field(description="chat, completion, embedding, rag, conversation, ingest, grpc-chat or grpc-ask.")
    name: Name | None = Field(None, description="What reports call it; by default its kind.")
    model: PublicName | None = Field(None, description="Model, pipeline or embedder to call.")
    weight: float = Field(
        1.0, gt=0, le=1_000_000, description="Share of the requests (closed loop: of the users), in any unit."
    )
    stream: bool = Field(True, description="Whether the answer comes as a stream; without one there are no TTFT and ITL.")
    lengths: Lengths = Field(default=Lengths(), description="How long prompts and answers are, in tokens.")
    unique: bool = Field(True, description="Whether prompts differ from the first token on, so that no prefix cache helps.")
    shared_prefix_tokens: int = Field(0, ge=0, le=1_000_000, description="Length of a system message that all requests share.")
    temperature: float | None = Field(None, ge=0, le=2, description="Sampling temperature; left out, the engine's.")
    turns: int = Field(4, ge=1, le=1000, description="Questions of a conversation; each sends all that was said before.")
    think: Duration = Field(2.0, description="Seconds between an answer and the conversation's next question.")
    questions: tuple[Text, ...] = Field((), max_length=10_000, description="What a pipeline is asked; by default bundled ones.")
    top_k: int | None = Field(None, ge=1, le=1000, description="Passages to retrieve; the pipeline must allow the override.")
    batch: int = Field(1, ge=1, le=2048, description="Texts in one embedding request.")
    vector_store: Name = Field("loadtest", description="Name of the vector store that ingests make, and delete at the end.")

    @model_validator(mode="after")
    def _fields_fit_the_kind(self) -> Self:
        _refuse_misfits(self, KIND_FIELDS, kind=self.kind)
        return self

    @property
    def label(self) -> str:
        """Return what reports call it."""
        return self.name or self.kind.value


class Target(Config):
    """What is loaded, and how a client behaves."""

    url: Text = Field("http://127.0.0.1:8000", pattern=r"^https?://[^/]+/?$", description="Where the REST API listens.")
    grpc: Text = Field("127.0.0.1:9000", description="host:port of the gRPC API.")
    timeout: Seconds = Field(120.0, description="Longest time of a request from its start to its end.")
    connect_timeout: Seconds = Field(5.0, description="Longest time to a connection.")
    reuse_connections: bool = Field(True, description="Whether a connection takes the next request after an answer.")
    verify_tls: bool = Field(True, description="Whether certificates must be valid.")
    max_open: int = Field(
        4000, ge=1, le=60_000, description="Requests one worker process may have open; more wait, and it counts."
    )


class Retry(Config):
    """What a client does that was told to come back later."""

    honour: Literal["retry-after", "never"] = Field(
        "never", description="Whether a 429 or 503 with Retry-After is asked again."
    )
    attempts: int = Field(3, ge=1, le=100, description="Most attempts at one request.")
    longest: Seconds = Field(30.0, description="A longer Retry-After is not waited for.")


class Scenario(Config):
    """One load test."""

    name: Name = Field(description="What reports call it.")
    description: str = Field("", max_length=2000, description="What it is for.")
    target: Target = Field(default=Target(), description="What is loaded.")
    load: Load = Field(description="How much is asked, and when.")
    mix: tuple[Entry, ...] = Field(min_length=1, max_length=50, description="What is asked.")
    duration: Seconds = Field(description="How long the measured run lasts, such as 5m.")
    warmup: Duration = Field(0.0, description="Time before it whose requests are not counted.")
    drain: Seconds = Field(60.0, description="Longest time after it in which open requests may end; what does not, failed.")
    seed: int = Field(1, ge=0, le=2**63, description="The same seed asks the same at the same times.")
    workers: int | None = Field(None, ge=1, le=256, description="Worker processes; by default one per CPU, four at most.")
    retry: Retry = Field(default=Retry(), description="What becomes of 429 and 503.")

    @model_validator(mode="after")
    def _labels_differ(self) -> Self:
        seen: set[str] = set()
        for number, entry in enumerate(self.mix):
            if entry.label in seen:
                field = "name" if entry.name else "kind"
                raise PlacedError(
                    [(("mix", number, field), f"{entry.label!r} stands here twice; give each a `name` of its own")]
                )
            seen.add(entry.label)
        return self

    @property
    def uses_grpc(self) -> bool:
        """Return whether any request goes over gRPC."""
        return any(entry.kind in (Kind.GRPC_CHAT, Kind.GRPC_ASK) for entry in self.mix)

    def entries(self, *kinds: Kind) -> Iterable[Entry]:
        """Return the parts of the mix of some kinds."""
        return (entry for entry in self.mix if entry.kind in kinds)
