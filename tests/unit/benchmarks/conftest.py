from collections.abc import Callable

import pytest

from benchmarks.data_path.accounting import RoleCost
from benchmarks.data_path.contracts import FakeSpec, Load, Measurement, Quantiles
from benchmarks.data_path.records import Row

MIB = 2**20
MakeRow = Callable[..., Row]


def cost(cpu_s: float, rss_growth_bytes: int = 0) -> RoleCost:
    before, peak = 100 * MIB, 100 * MIB + rss_growth_bytes
    return RoleCost(cpu_s, before, peak, peak, before // 2, before // 2 + rss_growth_bytes, peak, 4, 10, 12, 10)


def quantiles(p50: float) -> Quantiles:
    return Quantiles(p50=p50, p95=2 * p50, p99=3 * p50, max=4 * p50, mean=p50)


@pytest.fixture
def row() -> MakeRow:
    """Return what makes a measurement of ten seconds: by default a thousand tokens a second, 10 ms to the first."""

    def make(round_number: int, system: str, load: str = "c=32", **seen: float) -> Row:
        shape, _, value = load.partition("=")
        concurrency = None if shape == "rate" else int(value)
        roles = {} if system == "bare" else {"router": cost(seen.get("cpu_s", 2.0), int(seen.get("rss_growth", 0)))}
        tokens = int(seen.get("tokens_per_s", 1000) * 10)
        return Row(
            round=round_number,
            system=system,
            load=Load(load, 10.0, concurrency=concurrency, rate_per_s=None if concurrency else float(value)),
            spec=FakeSpec(),
            measurement=Measurement(
                requests=tokens // 64,
                errors={"cut": int(seen["errors"])} if "errors" in seen else {},
                tokens=tokens,
                seconds=10.0,
                ttft_ms=quantiles(seen.get("ttft_ms", 10.0)),
                itl_ms=quantiles(seen.get("itl_ms", 10.0)),
                e2e_ms=quantiles(650.0),
                client_cpu_s=0.5,
            ),
            costs={**roles, "engine": cost(1.0)},
            load_average=(0.1, 0.2, 0.3),
            date="2026-01-01T00:00:00+00:00",
        )

    return make
