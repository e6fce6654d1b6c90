"""What `manta simulate` plays: a latency model and a configuration, from a platform's document or from defaults; traces."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from autoscaling.simulation.calibration import Fit
from autoscaling.simulation.latency import PRESETS, LatencyModel
from autoscaling.simulation.options import SimulationOptions
from autoscaling.simulation.policy_names import Case, service_s
from autoscaling.simulation.trace import DAY_S, LONGEST_S, Draw, Trace
from autoscaling.simulation.trace_csv import read_csv
from autoscaling.simulation.trace_names import RECIPES, by_name
from serve_app.config import PlatformConfig, VariantConfig
from serve_app.config_error import field_name, message_of
from serve_app.config_scaling import AutoscalingConfig
from serve_app.errors import CommandError

PRESET = next(iter(PRESETS))
DEFAULT_RATE = 2.0
DEFAULT_DURATION_S = 1800.0
WARM_START_S = 60.0
MOST_SAMPLES = 360


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """What was asked for. None: from the platform's document, a trace's file, or a default."""

    model: str | None = None
    variant: str | None = None
    latency: str | None = None  # a preset's name or a file
    min_replicas: int | None = None
    max_replicas: int | None = None
    startup_s: float | None = None
    traces: tuple[str, ...] = ("step",)
    rate: float | None = None
    duration_s: float | None = None
    seed: int = 0
    slo_ttft_s: float = 2.0
    slo_itl_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Setup:
    """The replica and its scaling."""

    model: LatencyModel
    config: AutoscalingConfig
    max_leases: int
    latency_from: str  # for people


def setup(platform: PlatformConfig | None, asked: SimulateOptions) -> Setup:
    """Return what is simulated. Raises CommandError that names the option at fault."""
    if platform is None:
        if (name := "--model" if asked.model else "--variant" if asked.variant else None) is not None:
            raise CommandError(f"{name}: names a part of a document; give its FILE too, or leave {name} out")
        variant = None
        config = AutoscalingConfig(max_replicas=100)
    else:
        variant = _variant(platform, asked)
        config = _autoscaling(variant)
    config = _changed(config, asked)
    model, source = _latency(variant, config, asked)
    leases = SimulationOptions().max_leases if variant is None else variant.max_leases
    return Setup(model, config, leases, source)


def cases(found: Setup, asked: SimulateOptions) -> Iterator[Case]:
    """Yield what the policies are compared on, trace by trace. Raises CommandError that names the option at fault."""
    for text in _texts(asked.traces):
        with refusing("--trace"):
            trace = _trace(text, asked)
            _check_length(text, trace)
        if not len(trace):
            raise CommandError(f"--duration: no request of {text} arrives within {trace.duration_s:g} s; make it longer")
        yield _case(trace, found, asked)


@contextmanager
def refusing(option: str) -> Iterator[None]:
    """Raise CommandError that names the option in place of a ValueError."""
    try:
        yield
    except ValueError as err:
        raise CommandError(f"{option}: {err}") from err


def _variant(platform: PlatformConfig, asked: SimulateOptions) -> VariantConfig:
    models = {each.name: each for each in platform.models}
    model = models[_chosen("--model", asked.model, list(models))]
    variants = {each.name: each for each in model.variants}
    return variants[_chosen("--variant", asked.variant, list(variants))]


def _chosen(option: str, name: str | None, known: list[str]) -> str:
    if name is None and len(known) == 1:
        return known[0]
    if name not in known:
        said = "say which" if name is None else f"there is no {name!r}"
        raise CommandError(f"{option}: {said}; the document has {', '.join(known) or 'none'}")
    return name


def _autoscaling(variant: VariantConfig) -> AutoscalingConfig:
    if variant.autoscaling is None:
        raise CommandError(
            f"FILE: the variant {variant.name} has no `autoscaling`; add it, such as"
            " `autoscaling: {max_replicas: 10}`, or leave FILE out"
        )
    return variant.autoscaling


def _changed(config: AutoscalingConfig, asked: SimulateOptions) -> AutoscalingConfig:
    changes = {name: getattr(asked, name) for name in ("min_replicas", "max_replicas", "startup_s")}
    fields = {**config.model_dump(), **{name: value for name, value in changes.items() if value is not None}}
    try:
        return AutoscalingConfig(**fields)
    except ValidationError as err:
        problems = [(field_name(each["loc"]).replace("_", "-"), message_of(each)) for each in err.errors(include_url=False)]
        said = (f"--{name or 'min-replicas, --max-replicas'}: {message}" for name, message in problems)
        raise CommandError("; ".join(said)) from err


def _latency(variant: VariantConfig | None, config: AutoscalingConfig, asked: SimulateOptions) -> tuple[LatencyModel, str]:
    """Return the latency of a replica, and where it is from."""
    simulated = variant is not None and variant.engine.kind == "simulated"
    slots = config.slots or (variant and variant.engine.max_num_seqs)
    if variant is not None and simulated and asked.latency is None:
        own = variant.engine.simulated
        slots, startup_s = config.slots or own.slots, own.start_s if config.startup_s is None else config.startup_s
        model = LatencyModel(
            step_s=max(own.decode_s_per_token, 1e-6),  # a step that takes no time would never end
            step_s_per_sequence=0.0,
            prefill_s_per_token=own.prefill_s_per_token,
            slots=slots,
            max_batched_tokens=max(slots, LatencyModel().max_batched_tokens),
            startup_s=startup_s,
        )
        return model, f"the simulated engine of {variant.name}"
    name = asked.latency or PRESET
    base = PRESETS.get(name, PRESETS[PRESET])
    slots, startup_s = slots or base.slots, base.startup_s if config.startup_s is None else config.startup_s
    if name in PRESETS:
        most = max(base.max_batched_tokens, slots)
        model = replace(base, slots=slots, startup_s=startup_s, max_batched_tokens=most)
        return model, f"preset {name}: an order of magnitude, not a measurement; give --latency FILE.json for yours"
    with refusing("--latency"):
        return _fitted(Path(name)).model(slots, startup_s), f"measured, {name}"


def _fitted(path: Path) -> Fit:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as err:
        why = err.strerror.lower() if isinstance(err, OSError) and err.strerror else "not a text file"
        raise ValueError(
            f"{path} cannot be read: {why}; give the JSON file of `python -m benchmarks.latency_model`,"
            f" or a preset: {', '.join(PRESETS)}"
        ) from err
    try:
        return Fit.from_json(text)
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def _texts(traces: tuple[str, ...]) -> list[str]:
    texts = [name for text in traces for name in (RECIPES if text == "all" else (text,))]
    return list(dict.fromkeys(texts))


def _trace(text: str, asked: SimulateOptions) -> Trace:
    if text.endswith(".csv"):
        trace = read_csv(Path(text))
        trace = trace if asked.rate is None else trace.at_rate(asked.rate)
        return trace if asked.duration_s is None else trace.cut(asked.duration_s)
    rate = DEFAULT_RATE if asked.rate is None else asked.rate
    duration_s = DEFAULT_DURATION_S if asked.duration_s is None else asked.duration_s
    return replace(by_name(text, rate, duration_s, draw=Draw(asked.seed)), name=text)


def _check_length(text: str, trace: Trace) -> None:
    if trace.duration_s > LONGEST_S:
        lasts = f"{text} lasts {trace.duration_s / DAY_S:,.0f} days, at most {LONGEST_S / DAY_S:.0f} are played"
        fix = "arrivals are seconds, not milliseconds, from the trace's start: subtract the first one, or cut it by --duration"
        raise ValueError(f"{lasts}; {fix}")


def _case(trace: Trace, found: Setup, asked: SimulateOptions) -> Case:
    config, model = found.config, found.model
    # Begins as if the first minute's rate had been there before: else every policy would pay for a cold start alike.
    rate = trace.cut(WARM_START_S).rate
    first = math.ceil(rate * service_s(trace, model) / (model.slots * config.target_utilization))
    options = SimulationOptions(
        min_replicas=config.min_replicas,
        max_replicas=config.max_replicas,
        initial_replicas=max(config.min_replicas, min(config.max_replicas, first)),
        max_leases=found.max_leases,
        slo_ttft_s=asked.slo_ttft_s,
        slo_itl_s=asked.slo_itl_s,
        sample_s=max(1.0, trace.duration_s / MOST_SAMPLES),
        warm_up_s=min(model.startup_s, trace.duration_s / 4),  # the oracle cannot have started replicas sooner
        seed=asked.seed,
    )
    return Case(trace, model, config, options)
