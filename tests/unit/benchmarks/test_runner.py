import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

import benchmarks.data_path.__main__ as command
from benchmarks.data_path import registry
from benchmarks.data_path.contracts import Endpoint, Engine, FakeSpec, Load, Measurement
from benchmarks.data_path.plan import Timing, grouped, order, parse_loads
from benchmarks.data_path.records import Begin, Done, Failure, RawFile, Record, Row, Run, finished, valid
from benchmarks.data_path.runner import Plan, Rig, Runner, with_engine

MakeRow = Callable[..., Row]
TIMING = Timing(duration_s=1.0, warmup_s=0.5, tokens=8)
ME = {"router": [os.getpid()]}


class Bench:
    """Systems and loads that only write down what happened to them."""

    def __init__(self, measurement: Measurement, *, breaks: set[str] | None = None) -> None:
        self.log: list[str] = []
        self._measurement = measurement
        self._breaks = breaks or set()

    def rig(self) -> Rig:
        return Rig(system=self.system, engine=self.engine, run_load=self.run_load, facts=lambda: {"cores": 2})

    def engine(self, spec: FakeSpec) -> nullcontext[Engine]:
        return nullcontext(Engine("fake", Endpoint("127.0.0.1", 1, "bare", pids={"engine": [os.getppid()]}), spec))

    def system(self, name: str) -> "FakeSystem":
        return FakeSystem(name, self)

    def happen(self, what: str) -> None:
        self.log.append(what)
        if what in self._breaks:
            raise RuntimeError(f"{what} broke")

    def run_load(self, endpoint: Endpoint, load: Load, *, hold: bool) -> Measurement:
        self.happen(f"{endpoint.model} {load.name}{' held' if hold else ''}")
        return self._measurement


class FakeSystem:
    def __init__(self, name: str, bench: Bench) -> None:
        self.name = name
        self._bench = bench

    @contextmanager
    def running(self, engine: Engine) -> Iterator[Endpoint]:
        assert engine.spec is not None
        self._bench.happen(f"{self.name} starts at {engine.spec.itl_ms:g}")
        yield replace(engine.endpoint, model=self.name, pids=ME)
        self._bench.happen(f"{self.name} ends")


def plan(loads: str = "c=1", systems: tuple[str, ...] = ("bare", "manta"), rounds: int = 1) -> Plan:
    return Plan("fake", systems, grouped(parse_loads(loads, TIMING), FakeSpec()), TIMING, rounds, seed=0)


def run(the_plan: Plan, bench: Bench, path: Path) -> RawFile:
    raw = RawFile(path / "raw.jsonl")
    Runner(the_plan, bench.rig(), raw, say=lambda _: None).run()
    return raw


@pytest.fixture
def measurement(row: MakeRow) -> Measurement:
    return row(1, "any").measurement


def test_each_system_starts_for_each_pace_and_gets_every_load(tmp_path: Path, measurement: Measurement) -> None:
    bench = Bench(measurement)
    run(plan("c=1,rate=20,hold=50", systems=("manta",)), bench, tmp_path)
    assert bench.log == [
        *("manta starts at 10", "manta warm-up", "manta c=1", "manta rate=20", "manta ends"),
        *("manta starts at 500", "manta warm-up", "manta hold=10 held", "manta hold=50 held", "manta ends"),
    ]


def test_rounds_are_outermost_and_shuffled_again_in_each(tmp_path: Path, measurement: Measurement) -> None:
    bench, systems = Bench(measurement), ("a", "b", "c", "d")
    run(plan(systems=systems, rounds=3), bench, tmp_path)
    started = [line.split()[0] for line in bench.log if "starts" in line]
    rounds = [started[0:4], started[4:8], started[8:12]]
    assert rounds == [order(systems, round_number=number, seed=0) for number in (1, 2, 3)]
    assert [sorted(one) for one in rounds] == [list(systems)] * 3
    assert len({tuple(one) for one in rounds}) > 1


def test_measurement_is_kept_with_cost_and_the_warm_up_is_not(tmp_path: Path, measurement: Measurement) -> None:
    records = run(plan(systems=("manta",)), Bench(measurement), tmp_path).read()
    (kept,) = valid(records)
    assert isinstance(kept, Row)
    assert (kept.round, kept.system, kept.load.name, kept.load.seed, kept.measurement) == (1, "manta", "c=1", 1, measurement)
    assert sorted(kept.costs) == ["engine", "router"]
    assert [type(record) for record in records] == [Run, Begin, Row, Done]


@pytest.mark.parametrize(
    ("broken", "failure", "measured"),
    [
        pytest.param("bare starts at 10", ("start", None), ["manta c=1", "manta c=2"], id="start"),
        pytest.param("bare c=1", ("load", "c=1"), ["bare c=2", "manta c=1", "manta c=2"], id="load"),
        pytest.param("bare ends", ("end", None), ["bare c=1", "bare c=2", "manta c=1", "manta c=2"], id="end"),
    ],
)
def test_failure_is_recorded_and_the_run_goes_on(
    tmp_path: Path, measurement: Measurement, broken: str, failure: tuple[str, str | None], measured: list[str]
) -> None:
    records = run(plan("c=1,c=2"), Bench(measurement, breaks={broken}), tmp_path).read()
    failures = [record for record in records if isinstance(record, Failure)]
    assert [(one.system, one.stage, one.load, one.text) for one in failures] == [
        ("bare", *failure, f"RuntimeError: {broken} broke")
    ]
    assert sorted(f"{one.system} {one.load.name}" for one in records if isinstance(one, Row)) == measured
    assert finished(records) == {(1, "manta")}


def test_resume_takes_what_is_missing_and_what_had_failed(tmp_path: Path, measurement: Measurement) -> None:
    raw = run(plan(), Bench(measurement, breaks={"bare c=1"}), tmp_path)
    bench = Bench(measurement)
    run(plan(rounds=2), bench, tmp_path)
    second = order(("bare", "manta"), round_number=2, seed=0)
    assert [line.split()[0] for line in bench.log if "starts" in line] == ["bare", *second]
    assert finished(raw.read()) == {(1, "bare"), (1, "manta"), (2, "bare"), (2, "manta")}
    assert not [record for record in valid(raw.read()) if isinstance(record, Failure)]  # the failed turn is void


def test_resume_with_other_settings_is_refused(tmp_path: Path, measurement: Measurement) -> None:
    run(plan(), Bench(measurement), tmp_path)
    bench = Bench(measurement)
    with pytest.raises(ValueError, match="other loads or settings"):
        run(plan("c=2"), bench, tmp_path)
    assert bench.log == []


def test_line_that_a_kill_cut_is_passed_over(tmp_path: Path) -> None:
    raw = RawFile(tmp_path / "raw.jsonl")
    begin, done = Begin(1, "manta"), Done(1, "manta", is_clean=True)
    raw.append(begin)
    with raw.path.open("a") as file:
        file.write('{"kind": "done", "rou')
    raw.append(done)
    assert raw.read() == [begin, done]


def test_records_come_back_as_they_were(tmp_path: Path, row: MakeRow) -> None:
    raw = RawFile(tmp_path / "raw.jsonl")
    records: list[Record] = [
        Run("fake", {"seed": 0}, {"cores": 2}),
        row(1, "manta", "rate=20"),
        Failure(1, "x", "start", None, "why"),
    ]
    for record in records:
        raw.append(record)
    found = raw.read()
    assert isinstance(found[1], Row)
    assert [found[0], replace(found[1], load_average=(0.1, 0.2, 0.3)), found[2]] == records


def test_latency_that_nothing_was_seen_of_comes_back(tmp_path: Path, row: MakeRow) -> None:
    raw = RawFile(tmp_path / "raw.jsonl")
    raw.append(row(1, "manta", ttft_ms=math.nan))
    (found,) = raw.read()
    assert isinstance(found, Row)
    assert math.isnan(found.measurement.ttft_ms.p95)


def test_line_of_something_else_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "raw.jsonl"
    path.write_text('{"kind": "begin", "round": "first", "system": "manta"}\n')
    with pytest.raises(ValueError, match="line 1"):
        RawFile(path).read()


def test_engine_counts_as_itself_unless_the_system_runs_one() -> None:
    assert with_engine({"control": [5]}, {"engine": [5]}) == {"control": [5], "engine": [5]}
    assert list(with_engine({"engine": [7], "control": [5]}, {"engine": [5]}).items()) == [("control", [5]), ("engine", [7])]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        pytest.param("c=0", "'c=0' is no load", id="nobody"),
        pytest.param("users=3", "'users=3' is no load", id="unknown-shape"),
        pytest.param("c=1,c=1", "named twice", id="twice"),
        pytest.param(" ,", "no loads", id="none"),
    ],
)
def test_loads_that_make_no_sense_are_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_loads(text, TIMING)


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        pytest.param("benchmarks.data_path.systems.nowhere:Nothing", "cannot import", id="no-module"),
        pytest.param("benchmarks.data_path.contracts:Nothing", "has no Nothing", id="no-name"),
    ],
)
def test_system_that_is_not_there_says_so(path: str, complaint: str) -> None:
    with pytest.raises(registry.NotRegistered, match=complaint):
        registry.load(path)


def test_plan_that_cannot_run_is_refused_before_anything_starts(tmp_path: Path) -> None:
    raw = RawFile(tmp_path / "raw.jsonl")
    with pytest.raises(registry.NotRegistered, match="no system is named 'nothing'"):
        command.check(plan(systems=("nothing",)), raw, resume=False)
    with pytest.raises(ValueError, match="fake engine's pace"):
        command.check(replace(plan("hold=10"), engine="vllm"), raw, resume=False)
    raw.append(Begin(1, "manta"))
    with pytest.raises(ValueError, match="--resume"):
        command.check(plan(), raw, resume=False)
    command.check(plan(), raw, resume=True)


def test_published_run_is_in_the_document_with_its_pictures(tmp_path: Path, measurement: Measurement) -> None:
    raw = run(plan(), Bench(measurement), tmp_path)
    document = tmp_path / "benchmarks.md"
    document.write_text("<!-- data-path:fake -->\n<!-- /data-path:fake -->\n")
    assert not command.publish("fake", raw, document)  # most gates have no figures
    assert "![Tokens streamed](benchmarks/fake-throughput.svg)" in document.read_text()
    pictures = sorted(picture.name for picture in (tmp_path / "benchmarks").iterdir())
    assert pictures == ["fake-cpu.svg", "fake-throughput.svg", "fake-ttft.svg"]
