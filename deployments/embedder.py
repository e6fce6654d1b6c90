"""The embed stage: texts to vectors, batched across requests."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, cast

from autoscaling.signals import SafeSignals, stage_signals
from deployments.embedding_sources import model_identity, resolve
from serve_app.config import EmbedderConfig
from serve_app.contracts import EmbeddingFingerprint, TraceLink
from serve_app.errors import BadRequest, DeadlineExceeded
from serve_app.metrics import EMBED_SECONDS, EMBEDDED_TEXTS
from serve_app.observing.tracing import StageTracing
from serve_app.registry import Registry

UNHEALTHY_AFTER = 3  # forward passes that failed one after the other
STUCK_AFTER_S = 300.0  # of one pass: a full batch of long texts takes a slow CPU minutes


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


@dataclass(eq=False, slots=True)
class Text:
    """A text on its way through a batch."""

    text: str
    until_s: float  # by the stage's clock: later nobody waits for it
    is_left: bool = False  # its caller has gone


EmbedBatch = Callable[[list[Text]], Awaitable[list[list[float] | None]]]
EmbedOne = Callable[[Text], Awaitable[list[float] | None]]
Batch = Callable[[EmbedBatch, EmbedderConfig], EmbedOne]


def serve_batch(embed_batch: EmbedBatch, config: EmbedderConfig) -> EmbedOne:
    """Return ``embed_batch`` for one text: Ray Serve joins the texts that wait. Works inside a replica only."""
    from ray import serve

    # Decorated per instance: the decorator's queue belongs to the function, so a class-level one is shared.
    async def run(texts: list[Text]) -> list[list[float] | None]:
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
        self._pass_begun_s: float | None = None  # written by the thread
        self._slots = config.max_batch_size
        self._arrived = self._open = self._running = 0  # texts
        self._signals = SafeSignals(self._load)
        self._clock = clock
        self.tracing = StageTracing("embedder")
        self._name = config.name
        self.registry = Registry()
        self._seconds = self.registry.histogram(EMBED_SECONDS).labels(model=config.name)
        self._texts = self.registry.counter(EMBEDDED_TEXTS).labels(model=config.name)

    async def embed(
        self, texts: Sequence[str], *, trace: TraceLink | None = None, budget_s: float | None = None
    ) -> list[list[float]]:
        """Return one vector per text, in order; ``trace`` is where the caller stands in its trace.

        A call with many texts is cut into forward passes of ``max_batch_size``; calls that arrive together share one. No
        pass has texts whose caller has gone, or has its ``budget_s`` seconds behind it.

        Raises:
            BadRequest: (param ``input``) no texts, or one that is empty or not a string.
            DeadlineExceeded: the budget was used up before a text's pass began.
        """
        _check_input(texts)
        # Texts of like length share a pass, so that little of it is padding.
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        self._arrived += len(texts)
        until_s = math.inf if budget_s is None else self._clock() + budget_s
        with self.tracing.joined(trace, "embed", self._about(len(texts))):
            vectors = await asyncio.gather(*(self._counted(Text(texts[i], until_s)) for i in by_length))
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
        """Ask to be replaced after several failed passes in a row, or while one does not end.

        Raises:
            RuntimeError: the last passes all failed, or the one that runs has hung up the thread of all others.
        """
        begun_s = self._pass_begun_s
        if begun_s is not None and (lasts_s := self._clock() - begun_s) >= STUCK_AFTER_S:
            message = f"a forward pass has not ended for {lasts_s:.0f} s"
            raise RuntimeError(message)
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

    async def _counted(self, text: Text) -> list[float]:
        self._open += 1
        try:
            vector = await self._embed_one(text)
        finally:
            text.is_left = True
            self._open -= 1
        if vector is None:
            raise DeadlineExceeded("the text's turn to be embedded came after its time was over")
        return vector

    async def _embed_batch(self, texts: list[Text]) -> list[list[float] | None]:
        """Return a vector for each text; None for one that nobody waits for any longer."""
        loop = asyncio.get_running_loop()
        self._running += len(texts)
        try:
            vectors, seconds = await loop.run_in_executor(self._thread, self._encode, texts)
        except Exception:
            self._failures += 1
            raise
        finally:
            self._running -= len(texts)
        if embedded := sum(vector is not None for vector in vectors):
            self._failures = 0
            self._seconds.observe(seconds)
            self._texts.inc(embedded)
        return vectors

    def _encode(self, texts: list[Text]) -> tuple[list[list[float] | None], float]:
        """Return the vectors, and the seconds of the pass without its wait for the thread."""
        begun_s = self._pass_begun_s = self._clock()
        wanted = [i for i, text in enumerate(texts) if not text.is_left and begun_s < text.until_s]
        vectors: list[list[float] | None] = [None] * len(texts)
        try:
            made = self._encoder.encode([texts[i].text for i in wanted]) if wanted else []
            for i, vector in zip(wanted, made, strict=True):
                vectors[i] = vector
        finally:
            self._pass_begun_s = None
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
