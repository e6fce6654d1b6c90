"""The platform under test: two variants of the demo model on real vLLM, a pipeline, vector stores, keys, REST and gRPC.

`python -m tests.e2e.clients.platform FOLDER` starts one and keeps it. With MATRIX_FOLDER=FOLDER the tests use that one.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from serve_app.cluster import free_ports
from serve_app.credentials import hash_of, new_key
from tests.e2e.clients.checks import ABOUT, Place

ROOT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 1500.0
STOP_TIMEOUT_S = 120.0

DOCUMENTS = {
    ABOUT: "Return a string representing the current working directory, as os.getcwd does on every system.",
    "docs/os.mkdir.md": "Create a directory with os.mkdir. The mode is ignored on some systems.",
    "docs/math.isqrt.md": "Return the integer part of the square root of the input with math.isqrt.",
    "docs/math.gcd.md": "Greatest common divisor: math.gcd takes any number of integers.",
    "docs/heapq.heappush.md": "Push item onto heap with heapq.heappush, maintaining the heap invariant.",
    "docs/random.shuffle.md": "Shuffle list x in place with random.shuffle, and return None.",
    "docs/shutil.rmtree.md": "Recursively delete a directory tree with shutil.rmtree.",
    "docs/json.dumps.md": "Serialize an object to a JSON formatted string with json.dumps.",
}


def variant(name: str) -> dict[str, Any]:
    """Return a variant that gets half of the conversations."""
    engine_args = {
        # Without a parser vLLM refuses `tool_choice: auto`.
        "enable_auto_tool_choice": True,
        "tool_call_parser": "internlm",
        # A model this small fills all the white space that JSON allows, and never gets to the end.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
    }
    engine = {"max_model_len": 2048, "enforce_eager": True, "dtype": "bfloat16", "cpu_kv_cache_gib": 1}
    source = str(ROOT / "models/demo/model")
    return {"name": name, "source": source, "weight": 50, "engine": {**engine, "engine_args": engine_args}}


def configuration(folder: Path) -> dict[str, Any]:
    """Return the platform's document."""
    version = {
        "name": "v1",
        "embedder": "minilm",
        "collection": "docs",
        "top_k": 3,
        "prompt": str(ROOT / "prompts/demo.j2"),
        "model": "chat",
        "overrides": {"max_top_k": 5},
    }
    return {
        "models": [{"name": "chat", "variants": [variant("canary"), variant("stable")]}],
        "embedders": [{"name": "minilm", "source": "sentence-transformers/all-MiniLM-L6-v2"}],
        "pipelines": [{"name": "docs-assistant", "versions": [version]}],
        "vector_store": {"kind": "lancedb", "uri": str(folder / "lance")},
        "vector_stores": {"embedder": "minilm"},
        "auth": {"keys_file": str(folder / "keys.yaml")},
        "router": {"replicas": 1, "cpus": 0.5},
    }


def write_keys(path: Path) -> dict[str, str]:
    """Write the file of keys, and return the keys by the place's names for them."""
    yesterday = datetime.now(UTC) - timedelta(days=1)
    records: dict[str, dict[str, Any]] = {
        "key": {"name": "plain"},
        "admin_key": {"name": "admin", "admin": True},
        "other_key": {"name": "other", "tenant": "other-team"},
        "limited_key": {"name": "limited", "requests_per_minute": 3},
        "expired_key": {"name": "expired", "expires_at": yesterday.isoformat()},
        "embedding_key": {"name": "embedding", "models": ["minilm"]},
    }
    keys = {place_name: new_key(record["name"]) for place_name, record in records.items()}
    document = [{**record, "hash": hash_of(keys[place_name])} for place_name, record in records.items()]
    path.write_text(yaml.safe_dump({"keys": document}), encoding="utf-8")
    return keys


def write_platform(folder: Path) -> Place:
    """Write configuration, keys and documents into a folder, and return where the platform will be."""
    for name, text in DOCUMENTS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {Path(name).stem}\n\n{text}\n", encoding="utf-8")
    (folder / "platform.yaml").write_text(yaml.safe_dump(configuration(folder)), encoding="utf-8")
    http, grpc = free_ports(2)
    made = Place(url=f"http://127.0.0.1:{http}", grpc=f"127.0.0.1:{grpc}", **write_keys(folder / "keys.yaml"))
    (folder / "place.json").write_text(json.dumps(vars(made)), encoding="utf-8")
    return made


def read_place(folder: Path) -> Place:
    """Return where the platform of a folder is."""
    return Place(**json.loads((folder / "place.json").read_text(encoding="utf-8")))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Place]:
    """Start the platform, fill its collection, and stop it at the end."""
    made = write_platform(folder)
    http, grpc = (address.rpartition(":")[2] for address in (made.url, made.grpc))
    command = [sys.executable, "-m", "serve_app.cli", "run", str(folder / "platform.yaml"), "--port", http, "--grpc-port", grpc]
    with (folder / "run.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200"},
        )
    try:
        wait_until_up(process, folder / "run.log")
        ingest(folder, made)
        yield made
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_up(process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until it says that it serves. Raises AssertionError: it ended or is late."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while "serves; Ctrl-C stops it" not in (printed := log.read_text(encoding="utf-8", errors="replace")):
        assert process.poll() is None, f"manta run ended early:\n{printed[-4000:]}"
        assert time.monotonic() < deadline_s, f"not up after {START_TIMEOUT_S} s:\n{printed[-4000:]}"
        time.sleep(1.0)


def ingest(folder: Path, made: Place) -> None:
    """Fill the pipeline's collection as an operator does."""
    options = ["--collection", "docs", "--config", str(folder / "platform.yaml"), "--url", made.url]
    command = [sys.executable, "-m", "serve_app.cli", "ingest", str(folder / "docs"), *options]
    env = {**os.environ, "MANTA_API_KEY": made.key}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def main() -> None:
    """Start the platform in the folder on the command line, and keep it until a signal comes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(KeyboardInterrupt), running(folder) as made:
        print(f"{made.url} and {made.grpc} serve; MATRIX_FOLDER={folder} lets tests use them")  # noqa: T201
        signal.pause()


if __name__ == "__main__":
    main()
