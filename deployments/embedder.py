"""The embed stage: texts to vectors, batched across requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, cast

from autoscaling.signals import SafeSignals, stage_signals
from deployments.embedding_sources import model_identity, resolve
from serve_app.config import EmbedderConfig
from serve_app.contracts import EmbeddingFingerprint, TraceLink
from serve_app.errors import BadRequest
from serve_app.metrics import EMBED_SECONDS, EMBEDDED_TEXTS
from serve_app.observing.tracing import StageTracing
from serve_app.registry import Registry

UNHEALTHY_AFTER = 3  # forward passes that failed one after the other


class Encoder(Protocol):
    """A loaded model. ``encode`` is called from one thread only, ``token_counts`` from any."""

    fingerprint: EmbeddingFingerprint
    window_tokens: int | None  # what is read of a text, special tokens included; None: all of it

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector of ``fingerprint.dimension`` floats per text, in one forward pass."""
        ...

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text has, special tokens included, before any cut at the window."""
        ...


LoadEncoder = Callable[[EmbedderConfig], Encoder]
EmbedBatch = Callable[[list[str]], Awaitable[list[list[float]]]]
EmbedOne = Callable[[str], Awaitable[list[float]]]
Batch = Callable[[EmbedBatch, EmbedderConfig], EmbedOne]


def serve_batch(embed_batch: EmbedBatch, config: EmbedderConfig) -> EmbedOne:
    """Return ``embed_batch`` for one text: Ray Serve joins the texts that wait. Works inside a replica only."""
    from ray import serve

    # Decorated per instance: the decorator's queue belongs to the function, so a class-level one is shared.
    async def run(texts: list[str]) -> list[list[float]]:
        return await embed_batch(texts)

    join: Any = serve.batch(max_batch_size=config.max_batch_size, batch_wait_timeout_s=config.batch_wait_s)
    return cast("EmbedOne", join(run))


class SentenceTransformerEncoder:
    """A sentence-transformers model. Texts longer than its window are cut at the window, as the library does."""

    def __init__(self, config: EmbedderConfig) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from tokenizers import Tokenizer

        torch.set_num_threads(config.threads)
        self._normalize = config.normalize
        self._batch_size = config.max_batch_size
        device = "cuda" if config.accelerator else "cpu"
        self._model = SentenceTransformer(str(resolve(config.source)), device=device)
        # A copy of its own: encode() switches padding and truncation on the model's, which is not thread-safe.
        self._tokenizer = Tokenizer.from_str(self._model.tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.window_tokens: int | None = self._model.max_seq_length
        self.fingerprint = EmbeddingFingerprint(
            model=model_identity(config.source),
            dimension=int(self._model.get_embedding_dimension()),
            normalized=config.normalize,
        )

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Return one vector per text."""
        vectors = self._model.encode(
            list(texts),
            batch_size=self._batch_size,
            normalize_embeddings=self._normalize,
            show_progress_bar=False,
            convert_to_numpy=True,
        )
        return cast("list[list[float]]", vectors.tolist())

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]


def load_encoder(config: EmbedderConfig) -> Encoder:
    """Load the model that the configuration names.

    Raises:
        BadRequest: the source is a folder without a model, or of an unsupported form.
    """
    return SentenceTransformerEncoder(config)


class Embedder:
    """Turns texts into vectors. The forward pass runs in one thread of its own, so the event loop stays free.

    ``registry`` has its metrics, ``tracing`` makes spans for callers that are traced.
    """

    def __init__(
        self,
        config: EmbedderConfig,
        load: LoadEncoder = load_encoder,
        *,
        batch: Batch = serve_batch,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="embed")
        # Loaded in the thread that uses it: PyTorch's thread count belongs to the thread that sets it.
        self._encoder = self._thread.submit(load, config).result()
        self._embed_one = batch(self._embed_batch, config)
        self._failures = 0
        self._slots = config.max_batch_size
        self._arrived = self._open = self._running = 0  # texts
        self._signals = SafeSignals(self._load)
        self._clock = clock
        self.tracing = StageTracing("embedder")
        self._name = config.name
        self.registry = Registry()
        self._seconds = self.registry.histogram(EMBED_SECONDS).labels(model=config.name)
        self._texts = self.registry.counter(EMBEDDED_TEXTS).labels(model=config.name)

    async def embed(self, texts: Sequence[str], *, trace: TraceLink | None = None) -> list[list[float]]:
        """Return one vector per text, in order; ``trace`` is where the caller stands in its trace.

        A call with many texts is cut into forward passes of ``max_batch_size``; calls that arrive together share one.

        Raises:
            BadRequest: (param ``input``) no texts, or one that is empty or not a string.
        """
        _check_input(texts)
        # Texts of like length share a pass, so that little of it is padding.
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        self._arrived += len(texts)
        with self.tracing.joined(trace, "embed", self._about(len(texts))):
            vectors = await asyncio.gather(*(self._counted(texts[i]) for i in by_length))
        return [vector for _, vector in sorted(zip(by_length, vectors, strict=True), key=lambda pair: pair[0])]

    async def count_tokens(self, texts: Sequence[str], *, must_fit: bool = False) -> int:
        """Return how many tokens are read of the texts together.

        Raises:
            BadRequest: as ``embed``, or a text that ``must_fit`` is longer than the model's window.
        """
        _check_input(texts)
        counts = await asyncio.to_thread(self._encoder.token_counts, texts)
        if (window := self._encoder.window_tokens) is None:
            return sum(counts)
        if must_fit:
            _check_length(counts, window)
        return sum(min(count, window) for count in counts)

    async def describe(self) -> EmbeddingFingerprint:
        """Return what the vectors are."""
        return self._encoder.fingerprint

    async def check_health(self) -> None:
        """Ask to be replaced after several failed passes in a row.

        Raises:
            RuntimeError: the last passes all failed.
        """
        if self._failures >= UNHEALTHY_AFTER:
            message = f"the last {self._failures} forward passes failed"
            raise RuntimeError(message)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Return the signals of ``autoscaling.signals`` for the policy, counted in texts."""
        return self._signals()

    def _about(self, texts: int) -> dict[str, str | int]:
        return {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": self._name, "manta.texts": texts}

    def _load(self) -> dict[str, float]:
        # A text whose caller has left a running pass is open no more, yet in the pass.
        waiting = max(0, self._open - self._running)
        return stage_signals(waiting=waiting, running=self._running, slots=self._slots, arrived=self._arrived)

    async def _counted(self, text: str) -> list[float]:
        self._open += 1
        try:
            return await self._embed_one(text)
        finally:
            self._open -= 1

    async def _embed_batch(self, texts: list[str]) -> list[list[float]]:
        loop = asyncio.get_running_loop()
        self._running += len(texts)
        try:
            vectors, seconds = await loop.run_in_executor(self._thread, self._encode, texts)
        except Exception:
            self._failures += 1
            raise
        finally:
            self._running -= len(texts)
        self._failures = 0
        self._seconds.observe(seconds)
        self._texts.inc(len(texts))
        return vectors

    def _encode(self, texts: list[str]) -> tuple[list[list[float]], float]:
        """Return the vectors, and the seconds of the pass without its wait for the thread."""
        begun_s = self._clock()
        vectors = self._encoder.encode(texts)
        return vectors, self._clock() - begun_s


def _check_length(counts: Sequence[int], window: int) -> None:
    for i, count in enumerate(counts):
        if count > window:
            raise BadRequest(
                f"input[{i}] has {count} tokens, and this embedder reads {window} of a text; split it, "
                f"or send `truncate_prompt_tokens: -1` to have only its beginning embedded",
                param="input",
            )


def _check_input(texts: object) -> None:
    if isinstance(texts, str) or not isinstance(texts, Sequence) or not texts:
        raise BadRequest("input must be a non-empty list of strings", param="input")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text:
            raise BadRequest(f"input[{i}] must be a non-empty string", param="input")
