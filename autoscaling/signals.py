"""Names of the signals that replicas report and policies read: written once, here."""

from __future__ import annotations

from serve_app.contracts import EngineLoad

WAITING = "manta_waiting"  # requests queued in the engine
RUNNING = "manta_running"  # requests being decoded
OPEN = "manta_open"  # HTTP requests open on the replica
KV_CACHE = "manta_kv_cache_usage_ratio"  # 0..1


def engine_signals(load: EngineLoad) -> dict[str, float]:
    """Return an engine's load as the flat numbers that Serve carries to the policy."""
    return {
        WAITING: float(load.waiting),
        RUNNING: float(load.running),
        OPEN: float(load.open_requests),
        KV_CACHE: float(load.kv_cache_usage_ratio),
    }
