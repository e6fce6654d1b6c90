"""PlatformConfig: the one document that configures everything, validated once and frozen."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

# Sections that live next door are named here too: this module is where the configuration is imported from.
from serve_app.config_adapters import AdapterConfig as AdapterConfig
from serve_app.config_adapters import AdapterVersionConfig as AdapterVersionConfig
from serve_app.config_adapters import adapter_problems, pin_problems
from serve_app.config_auth import ApiKeyConfig as ApiKeyConfig
from serve_app.config_auth import AuthConfig as AuthConfig
from serve_app.config_engine import SET_BY_MANTA as SET_BY_MANTA
from serve_app.config_engine import EngineConfig as EngineConfig
from serve_app.config_engine import HealthConfig as HealthConfig
from serve_app.config_engine import LoraEngineConfig as LoraEngineConfig
from serve_app.config_engine import SimulatedFaults as SimulatedFaults
from serve_app.config_engine import SimulatedLatency as SimulatedLatency
from serve_app.config_engine import SwitchedFaults as SwitchedFaults
from serve_app.config_fields import DNS_LABEL as DNS_LABEL
from serve_app.config_fields import Config as Config
from serve_app.config_fields import Name as Name
from serve_app.config_fields import PublicName as PublicName
from serve_app.config_fields import Text as Text
from serve_app.config_logs import LogsConfig as LogsConfig
from serve_app.config_pipelines import PipelineConfig as PipelineConfig
from serve_app.config_pipelines import PipelineVersionConfig as PipelineVersionConfig
from serve_app.config_rollouts import Duration as Duration
from serve_app.config_rollouts import GatesConfig as GatesConfig
from serve_app.config_rollouts import RolloutConfig as RolloutConfig
from serve_app.config_rollouts import ShadowConfig as ShadowConfig
from serve_app.config_rollouts import rollout_problems, shadow_problems
from serve_app.config_router import OutlierEjectionConfig as OutlierEjectionConfig
from serve_app.config_router import RetryBudgetConfig as RetryBudgetConfig
from serve_app.config_rules import (
    accelerator_problems,
    budget_problems,
    key_problems,
    name_problems,
    override_problems,
    reference_problems,
    refuse,
    share_problems,
    spread_problems,
)
from serve_app.config_scaling import AutoscalingConfig as AutoscalingConfig
from serve_app.config_scaling import ReplicasPerNode
from serve_app.config_scaling import ScalingConfig as ScalingConfig
from serve_app.config_scaling import StageScalingConfig as StageScalingConfig
from serve_app.config_sources import Source as Source
from serve_app.config_sources import SourceKind as SourceKind
from serve_app.config_sources import source_kind as source_kind
from serve_app.config_tracing import TracingConfig as TracingConfig
from serve_app.config_vector_stores import VectorStoresConfig as VectorStoresConfig

ANY_ACCELERATOR = "any"  # whatever GPU a node has
# Ray turns it into the resource "accelerator_type:<type>", so it is one word.
AcceleratorType = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][-\w.]*$", max_length=60)]
ORIGIN = r"^(\*|https?://[^/?#\s@*]+)$"
Origin = Annotated[str, StringConstraints(pattern=ORIGIN, max_length=200)]
ReplicaChoice = Literal["prefix", "least_loaded", "random"]


class VariantConfig(Config):
    """One deployable version of a model: one Serve application."""

    name: Name = Field(description="Name of the variant, such as stable or canary.")
    source: Source = Field(description="Hugging Face id, folder (./models/x) or s3://bucket/prefix of the weights.")
    weight: int = Field(100, ge=0, le=100, description="Share of conversations in percent; 0 keeps it warm.")
    engine: EngineConfig = Field(default=EngineConfig(), description="The engine and its parallelism.")
    accelerator: AcceleratorType | None = Field(None, description="Accelerator type, such as L40S, or `any`; omit for CPU.")
    cpus: float = Field(1.0, gt=0, description="CPU cores reserved for each rank.")
    replicas: int = Field(1, ge=0, description="Number of replicas when `autoscaling` is absent.")
    autoscaling: AutoscalingConfig | None = Field(None, description="Scale by queue depth; absent means fixed.")
    max_replicas_per_node: ReplicasPerNode = None
    max_leases: int = Field(256, ge=1, description="Requests one Router may have open on one replica.")
    drain_timeout_s: float = Field(600.0, gt=0, description="Seconds open streams may take before a replica stops.")
    price_per_hour: float | None = Field(
        None, ge=0, description="What one replica costs per hour, in your currency; shown as cost per 1,000 tokens."
    )


class ModelConfig(Config):
    """A model as clients name it."""

    name: Name = Field(description="What clients send as `model`.")
    variants: tuple[VariantConfig, ...] = Field(min_length=1, description="Versions that share the traffic.")
    priority: int = Field(
        5, ge=0, le=9, description="Where `scaling.max_accelerators` is reached, models of a higher priority get theirs first."
    )
    rollout: RolloutConfig | None = Field(None, description="Raise a variant's share step by step, while its gates hold.")
    shadow: ShadowConfig | None = Field(None, description="Copy requests to a variant that does not answer them.")
    adapters: tuple[AdapterConfig, ...] = Field(
        (), description="LoRA adapters, called as `MODEL:ADAPTER`; replicas load them when they are asked for."
    )
    fallback: bool = Field(
        True, description="Whether the baseline answers what another variant has failed before its first byte."
    )
    first_byte_timeout: Duration | None = Field(
        None, description="Longest wait for a stream's first byte, such as 60s; then the variant has failed. Absent: no limit."
    )
    hedge_after: Duration | None = Field(
        None,
        description="Time without the answer's first byte (of one that is no stream: without the answer), such as 2s, after "
        "which the request is sent to a second replica of its variant, if that has a place; the first answer counts. Absent: "
        "never.",
    )
    continue_streams: bool = Field(
        False,
        description="Whether a stream whose replica fails goes on at another one of its variant, from the tokens so far; for "
        "chats and completions of text. Routers then read every chunk.",
    )

    @model_validator(mode="after")
    def _variants_share_all_traffic(self) -> Self:
        refuse(share_problems("variants", self.variants))
        refuse(rollout_problems("variants", self.variants, self.rollout))
        refuse(shadow_problems(self.variants, self.shadow))
        refuse(adapter_problems(self))
        return self


class EmbedderConfig(Config):
    """A sentence-embedding model served by its own deployment."""

    name: Name = Field(description="What pipelines and clients of /v1/embeddings call it.")
    source: Source = Field(description="Hugging Face id or folder of a sentence-transformers model.")
    replicas: int = Field(1, ge=1, description="Number of replicas when `autoscaling` is absent.")
    autoscaling: StageScalingConfig | None = Field(None, description="Scale by texts that wait; absent means fixed.")
    max_replicas_per_node: ReplicasPerNode = None
    max_batch_size: int = Field(32, ge=1, description="Most texts embedded in one forward pass.")
    batch_wait_s: float = Field(0.005, ge=0, description="Seconds to wait for a batch to fill.")
    threads: int = Field(1, ge=1, description="Torch threads per replica.")
    normalize: bool = Field(True, description="Scale vectors to length 1.")
    accelerator: AcceleratorType | None = Field(None, description="Accelerator type or `any`; omit for CPU.")


class VectorStoreConfig(Config):
    """Where collections live."""

    kind: Literal["lancedb"] = Field("lancedb", description="LanceDB: embedded, in a folder or an object store.")
    uri: Text = Field("./data/lance", description="Folder or s3:// URI.")


class LimitsConfig(Config):
    """Bounds that are checked before a request is parsed or routed."""

    max_body_bytes: int = Field(10 * 1024 * 1024, ge=1024, description="Largest request body, in bytes.")
    max_choices: int = Field(16, ge=1, description="Most answers (`n`, `best_of`) one request may ask for.")
    max_waiting: int = Field(1024, ge=0, description="Requests one Router may hold while no replica can take them.")
    wait_timeout_s: float = Field(600.0, gt=0, description="Seconds a request may wait for a replica.")
    deadline_s: float | None = Field(
        None,
        gt=0,
        description="Seconds a request may take in all, stages and answer together; a client may ask for fewer "
        "(`x-request-timeout-s`). Absent: no limit.",
    )
    max_expected_wait_s: float = Field(
        60.0,
        ge=0,
        description="Seconds that a request may be expected to wait for a place, by how fast places come free; one that would "
        "wait longer is refused at once. 0: nobody is refused for a wait that is only expected.",
    )


class RouterConfig(Config):
    """The ingress."""

    replicas: int = Field(2, ge=1, description="Router replicas when `autoscaling` is absent; each relays on one CPU core.")
    autoscaling: StageScalingConfig | None = Field(
        None, description="Scale by how busy the Routers' processes are; absent means fixed."
    )
    max_replicas_per_node: ReplicasPerNode = None
    cpus: float = Field(1.0, gt=0, description="CPU cores reserved for each Router replica.")
    max_open_requests: int = Field(10_000, ge=1, description="Requests one Router replica may have open.")
    drain_timeout_s: float = Field(600.0, gt=0, description="Seconds open streams may take before a Router stops.")
    replica_choice: ReplicaChoice = Field(
        "prefix", description="`prefix` sends prompts that start alike to one replica; the others ignore the prompt."
    )
    balance_factor: float = Field(
        1.25,
        ge=1.05,
        le=10,
        description="Times the mean load (requests per replica) up to which a replica takes a prefix's requests; then the "
        "next one does (bounded loads, arXiv:1608.01350). Less evens out load, more reuses KV cache.",
    )
    keep_alive_s: float = Field(
        10.0,
        ge=0,
        description="Seconds without an answer after which a streaming client gets its headers and a comment, and another "
        "comment each time they pass again, as while a replica wakes from zero. 0: never.",
    )
    stream_idle_timeout_s: float = Field(
        120.0,
        ge=0,
        description="Seconds without a whole event after which a stream that has begun is taken for stuck: its client gets an "
        "error event (`stream_stalled`), and its replica's connection is dropped. 0: never.",
    )
    outlier_ejection: OutlierEjectionConfig = Field(
        default=OutlierEjectionConfig(), description="When a Router leaves a replica that fails alone."
    )
    retry_budget: RetryBudgetConfig = Field(
        default=RetryBudgetConfig(), description="How many requests a Router sends once more after a failure."
    )
    grpc: bool = Field(True, description="Serve gRPC beside REST.")
    cors_origins: tuple[Origin, ...] = Field(
        (), description="Origins (`https://app.example.org`, or `*`) whose pages may call this platform from a browser."
    )


class RetrieverConfig(Config):
    """The stage that searches collections. There is one where there are pipelines or vector stores."""

    replicas: int = Field(1, ge=1, description="Number of replicas when `autoscaling` is absent.")
    autoscaling: StageScalingConfig | None = Field(None, description="Scale by searches that wait; absent means fixed.")
    max_replicas_per_node: ReplicasPerNode = None
    max_concurrent_searches: int = Field(16, ge=1, description="Searches in the store at a time per replica; others wait.")
    cpus: float = Field(0.5, gt=0, description="CPU cores reserved for each replica.")


class AcceleratorPoolConfig(Config):
    """Accelerators of one type that the cluster has, or may grow to."""

    type: AcceleratorType = Field(description="Ray's accelerator type, such as L40S.")
    per_node: int = Field(ge=1, description="Accelerators in one node.")
    max_nodes: int = Field(1, ge=1, description="Most nodes of this type.")


class RolloutsConfig(Config):
    """What keeps the traffic table and the progress of rollouts."""

    state_uri: Text | None = Field(
        None,
        description="Folder or s3:// URI where progress and history are kept. Absent: in the Ray cluster itself, where they "
        "outlive the deployment, but not the cluster.",
    )


class PlatformConfig(Config):
    """The platform: models, embedders, pipelines and where they run."""

    models: tuple[ModelConfig, ...] = Field((), description="Models served by vLLM replicas.")
    embedders: tuple[EmbedderConfig, ...] = Field((), description="Embedding models.")
    pipelines: tuple[PipelineConfig, ...] = Field((), description="RAG chains.")
    vector_store: VectorStoreConfig = Field(default=VectorStoreConfig(), description="Where collections live.")
    auth: AuthConfig = Field(default=AuthConfig(), description="Who may call.")
    limits: LimitsConfig = Field(default=LimitsConfig(), description="Request bounds.")
    router: RouterConfig = Field(default=RouterConfig(), description="The ingress.")
    retriever: RetrieverConfig = Field(default=RetrieverConfig(), description="The stage that searches collections.")
    rollouts: RolloutsConfig = Field(default=RolloutsConfig(), description="The traffic table and rollouts.")
    scaling: ScalingConfig = Field(default=ScalingConfig(), description="What all deployments that scale share.")
    logs: LogsConfig = Field(default=LogsConfig(), description="The log of requests.")
    tracing: TracingConfig = Field(default=TracingConfig(), description="Traces of requests, by OpenTelemetry.")
    vector_stores: VectorStoresConfig | None = Field(None, description="Uploads and vector stores of callers; absent: none.")
    accelerators: tuple[AcceleratorPoolConfig, ...] = Field(
        (), description="What the cluster has; declared pools are checked against what variants need."
    )

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Self:
        references = (name_problems, reference_problems, pin_problems, override_problems, key_problems)
        checks = (*references, accelerator_problems, budget_problems, spread_problems)
        refuse(problem for check in checks for problem in check(self))
        return self
