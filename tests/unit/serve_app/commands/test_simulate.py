from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from autoscaling.simulation.latency import PRESETS
from serve_app.cli import app
from serve_app.commands.simulate import Output
from serve_app.commands.simulate_setup import SimulateOptions, cases, setup
from serve_app.config import PlatformConfig
from serve_app.errors import CommandError
from serve_app.loading import parse_platform

SHORT = ("--duration", 40, "--rate", 2, "--startup-s", 5)
QUICK = (*SHORT, "--policy", "ours", "--policy", "fixed:replicas=2")
SIMULATED = """
models:
  - name: chat
    variants:
      - name: stable
        source: acme/chat
        weight: 90
        max_leases: 32
        engine: {kind: simulated, simulated: {decode_s_per_token: 0.02, prefill_s_per_token: 0.0002, slots: 8, start_s: 7}}
        autoscaling: {min_replicas: 2, max_replicas: 5, target_queue_depth: 3}
      - name: canary
        source: acme/chat
        weight: 10
  - name: code
    variants:
      - name: stable
        source: acme/code
        engine: {max_num_seqs: 16}
        autoscaling: {max_replicas: 4, startup_s: 30}
"""
FIT = {"step_s": 0.01, "step_s_per_sequence": 0.0001, "prefill_s_per_token": 0.00005, "request_s": 0.002}
RESIDUAL = {"concurrency": 1, "prompt_tokens": 8, "measured_s": 1.0, "fitted_s": 1.1}


def manta(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)])


def said(result: Result) -> str:
    assert isinstance(result.exception, CommandError), result.output
    return str(result.exception)


def document(*arguments: object) -> dict[str, Any]:
    result = manta(*arguments, "--json")
    assert result.exit_code == 0, result.output
    loaded: dict[str, Any] = json.loads(result.stdout)
    return loaded


@pytest.fixture
def platform() -> PlatformConfig:
    return parse_platform(SIMULATED, name="platform.yaml")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "platform.yaml"
    path.write_text(SIMULATED)
    return path


def test_a_table_compares_the_policies() -> None:
    result = manta(*QUICK)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.strip().startswith("step: ") and line.strip().endswith("requests") for line in lines)
    assert [line.split()[0] for line in lines if line.strip().startswith(("ours", "fixed"))] == ["ours", "fixed:replicas=2"]
    assert "preset 8b-l40s: an order of magnitude, not a measurement" in result.stdout


def test_the_usual_policies_are_played_when_none_is_named() -> None:
    results = document("--duration", 30, "--rate", 1, "--startup-s", 5)["results"]
    assert [each["policy"] for each in results] == ["ours", "ray-default", "hpa-qps", "oracle"]
    assert {each["trace"] for each in results} == {"step"}


def test_all_traces_are_played_once() -> None:
    results = document("--duration", 20, "--rate", 1, "--trace", "all", "--trace", "poisson", "--policy", "ours")["results"]
    assert [each["trace"] for each in results] == ["poisson", "step", "spike", "diurnal", "bursty"]


@pytest.mark.parametrize("policy", ["hpa-utilization", "hpa-qps:target=2", "ray-default:target=2", "oracle"])
def test_every_policy_can_be_named(policy: str) -> None:
    [each] = document(*SHORT, "--policy", policy)["results"]
    assert each["policy"] == policy
    assert 0 <= each["attainment"] <= 1


def test_a_seed_makes_one_answer() -> None:
    one, same, other = (document(*QUICK, "--trace", "bursty", "--seed", seed) for seed in (1, 1, 2))
    assert one == same
    assert one["results"] != other["results"]


def test_a_trace_may_be_a_file_whole_cut_or_at_another_rate(tmp_path: Path) -> None:
    path = tmp_path / "rush.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{second},20,10\n" for second in range(41)))
    for arguments, arrived in (([], 31), (["--duration", 20], 16), (["--rate", 4.1], 8 * 4)):
        results = document("--trace", path, "--policy", "ours", *arguments)["results"]
        assert results[0]["trace"] == "rush"
        assert results[0]["requests"] == pytest.approx(arrived, abs=2)  # a quarter of the time is warm-up


def test_a_report_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.html"
    result = manta(*QUICK, "--html", path)
    assert f"report: {path}" in result.stdout
    html = path.read_text()
    assert "<svg" in html
    assert "fixed:replicas=2" in html
    assert "5 s to start" in html


def test_a_report_beside_json_leaves_stdout_one_document(tmp_path: Path) -> None:
    assert len(document(*QUICK, "--html", tmp_path / "out.html")["results"]) == 2
    assert (tmp_path / "out.html").exists()


def test_a_document_gives_bounds_slots_and_the_simulated_latency(platform: PlatformConfig) -> None:
    found = setup(platform, SimulateOptions(model="chat", variant="stable"))
    assert (found.config.min_replicas, found.config.max_replicas, found.config.target_queue_depth) == (2, 5, 3)
    model = found.model
    assert (model.step_s, model.step_s_per_sequence, model.prefill_s_per_token) == (0.02, 0.0, 0.0002)
    assert (model.slots, model.startup_s, found.max_leases) == (8, 7.0, 32)
    assert found.latency_from == "the simulated engine of stable"


def test_a_real_engine_gives_its_slots_and_start_to_a_preset(platform: PlatformConfig) -> None:
    found = setup(platform, SimulateOptions(model="code", latency="8b-h100"))
    assert (found.model.slots, found.model.startup_s) == (16, 30.0)
    assert found.model.step_s == PRESETS["8b-h100"].step_s
    assert found.latency_from.startswith("preset 8b-h100: an order of magnitude")


def test_a_measured_latency_comes_from_its_file(platform: PlatformConfig, tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(FIT))
    found = setup(platform, SimulateOptions(model="chat", variant="stable", latency=str(path), startup_s=9.0))
    assert (found.model.step_s, found.model.step_s_per_sequence, found.model.startup_s) == (0.01, 0.0001, 9.0)
    assert found.latency_from == f"measured, {path}"


def test_options_go_before_the_document(platform: PlatformConfig) -> None:
    asked = SimulateOptions(model="chat", variant="stable", min_replicas=1, max_replicas=3, startup_s=2.0)
    found = setup(platform, asked)
    assert (found.config.min_replicas, found.config.max_replicas, found.model.startup_s) == (1, 3, 2.0)


def test_a_run_begins_with_what_its_first_minute_needs() -> None:
    asked = SimulateOptions(traces=("poisson",), rate=30.0, duration_s=100.0)
    [case] = cases(setup(None, asked), asked)
    per_replica = case.capacity * case.config.target_utilization
    assert case.options.first_replicas == pytest.approx(30.0 / per_replica, abs=1.5)
    assert case.options.warm_up_s == 25.0


def test_the_file_is_read_by_the_command(file: Path) -> None:
    result = document(file, "--model", "chat", "--variant", "stable", "--duration", 40, "--policy", "ours")
    assert result["facts"]["replicas"] == "2 to 5"
    assert result["facts"]["traces"] == "step, duration 40 s"
    assert result["facts"]["replica"].startswith("8 slots; a step takes 20 ms")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param(
            ["--model", "chat"], "--model: names a part of a document; give its FILE too, or leave --model out", id="model"
        ),
        pytest.param(["--variant", "x"], "--variant: names a part of a document; give its FILE too", id="variant"),
        pytest.param(
            ["--trace", "stpe"], "--trace: there is no trace 'stpe'; did you mean step? take one of poisson", id="trace"
        ),
        pytest.param(["--trace", "/gone.csv"], "--trace: /gone.csv cannot be read: no such file or directory", id="no-file"),
        pytest.param(["--rate", "0.001"], "--duration: no request of step arrives within 20 s; make it longer", id="empty"),
        pytest.param(
            ["--policy", "our"], "--policy: there is no policy 'our'; did you mean ours? take one of ours,", id="policy"
        ),
        pytest.param(["--policy", "oracle:x=1"], "--policy: oracle has no option 'x'; it has none", id="oracle-option"),
        pytest.param(["--policy", "ours:x=1"], "--policy: ours has no option 'x'; it has none", id="policy-option"),
        pytest.param(["--policy", "ray-default:target=0"], "--policy: ray-default: target must be over 0", id="ray-target"),
        pytest.param(["--policy", "fixed:replicas=-1"], "--policy: fixed: replicas must be a whole number", id="fixed"),
        pytest.param(["--policy", "hpa-qps:target=0"], "--policy: target must be over 0, got 0", id="target"),
        pytest.param(
            ["--latency", "/gone.json"], "--latency: /gone.json cannot be read: no such file or directory; give", id="latency"
        ),
        pytest.param(
            ["--min-replicas", "200"], "--min-replicas, --max-replicas: min_replicas 200 is over max_replicas 100", id="bounds"
        ),
        pytest.param(["--html", "/gone/out.html"], "--html: there is no folder /gone; make it first", id="html"),
    ],
)
def test_a_wrong_option_is_named_with_its_remedy(arguments: list[str], why: str) -> None:
    assert why in said(manta("--duration", 20, *arguments))


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        pytest.param([], "--model: say which; the document has chat, code", id="no-model"),
        pytest.param(["--model", "chta"], "--model: there is no 'chta'; the document has chat, code", id="wrong-model"),
        pytest.param(["--model", "chat"], "--variant: say which; the document has stable, canary", id="no-variant"),
        pytest.param(
            ["--model", "chat", "--variant", "canary"],
            "FILE: the variant canary has no `autoscaling`; add it",
            id="no-autoscaling",
        ),
    ],
)
def test_a_part_that_the_document_lacks_is_named(file: Path, arguments: list[str], why: str) -> None:
    assert why in said(manta(file, *arguments))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "--latency: {path}: not JSON"),
        ("{}", "--latency: {path}: step_s must be a number of seconds"),
        (json.dumps({**FIT, "step_s": 0}), "--latency: step_s must be over 0"),
        (json.dumps({**FIT, "residuals": 5}), "--latency: {path}: residuals must be a list of objects, or left out; got 5"),
        (
            json.dumps({**FIT, "residuals": [5]}),
            "--latency: {path}: residuals[0] must be an object of concurrency, prompt_tokens, measured_s, fitted_s; got 5",
        ),
        (json.dumps({**FIT, "residuals": [{"x": 1}]}), "--latency: {path}: residuals[0] must be an object of concurrency"),
        (
            json.dumps({**FIT, "residuals": [RESIDUAL, {**RESIDUAL, "fitted_s": "1"}]}),
            "--latency: {path}: residuals[1].fitted_s must be a number over 0; got '1'",
        ),
    ],
)
def test_a_latency_file_that_holds_something_else_is_explained(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "fit.json"
    path.write_text(text)
    assert said(manta("--latency", path)).startswith(why.format(path=path))


def test_a_latency_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fit.json"
    path.write_bytes(b"\xff\xfe")
    assert "cannot be read: not a text file; give the JSON file of" in said(manta("--latency", path))


@pytest.mark.parametrize(("option", "value"), [("--rate", 0), ("--duration", -5), ("--slo-ttft", 0), ("--max-replicas", 0)])
def test_a_number_out_of_range_is_a_wrong_use_of_its_option(option: str, value: int) -> None:
    result = manta(option, value)
    assert result.exit_code == 2
    assert option in result.output


def test_a_start_that_takes_no_number_is_refused() -> None:
    with pytest.raises(CommandError, match="--startup-s: "):
        setup(None, SimulateOptions(startup_s=-1.0))


def test_a_report_that_cannot_be_written_is_refused_after_the_table(tmp_path: Path) -> None:
    path = tmp_path / f"{'x' * 300}.html"
    result = manta(*QUICK, "--html", path)
    assert said(result).startswith(f"--html: {path} cannot be written: file name too long")
    assert "latency model: preset" in result.stdout
    result = manta(*QUICK, "--html", path, "--json")
    assert said(result).startswith("--html: ")
    assert len(json.loads(result.stdout)["results"]) == 2


def never(*_: object, **__: object) -> None:
    raise AssertionError("played before the options were checked")


def test_a_place_that_is_a_directory_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.commands.simulate.play", never)
    why = f"--html: {tmp_path} is a directory; give a file, such as {tmp_path}/report.html"
    assert said(manta(*QUICK, "--html", tmp_path)) == why
    gone = tmp_path / "gone"
    assert said(manta(*QUICK, "--html", gone / "out.html")) == f"--html: there is no folder {gone}; make it first"


def test_a_place_that_may_not_be_written_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.commands.simulate.play", never)
    monkeypatch.setattr("os.access", lambda place, _: place != tmp_path)
    path = tmp_path / "out.html"
    assert said(manta(*QUICK, "--html", path)) == f"--html: {path} may not be written; choose another place"


@pytest.mark.parametrize("seconds", [1_700_000_000, 1_700_000_000_000], ids=["unix-seconds", "unix-milliseconds"])
@pytest.mark.parametrize("more", [(), ("--duration", 20), ("--rate", 2)], ids=["whole", "cut", "at-a-rate"])
def test_a_trace_of_unix_times_is_refused(tmp_path: Path, seconds: int, more: tuple[object, ...]) -> None:
    path = tmp_path / "rush.csv"
    path.write_text(f"arrival_s,prompt_tokens,output_tokens\n{seconds},20,10\n{seconds + 9},20,10\n")
    found = said(manta("--trace", path, *more))
    assert found.startswith(f"--trace: {path}: arrival_s: its first request arrives at {seconds}, ")
    assert found.endswith("arrivals are seconds, not milliseconds, from the trace's start: subtract the first one")


def test_a_trace_of_years_is_refused_unless_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "rush.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n0,20,10\n9,20,10\n8640000,20,10\n")
    found = said(manta("--trace", path))
    assert found.startswith(f"--trace: {path} lasts 100 days, at most 31 are played; arrivals are seconds, not")
    assert len(document("--trace", path, "--duration", 20, "--policy", "ours")["results"]) == 1
    assert "--trace: poisson lasts 100 days" in said(manta("--trace", "poisson", "--rate", 0.001, "--duration", 8640000))


def test_a_checkout_that_was_never_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("serve_app.commands.simulate.version", missing)
    assert document("--duration", 20, "--policy", "ours")["facts"]["Manta"] == "unknown (not installed)"


def test_no_policies_are_the_usual_ones() -> None:
    assert Output().policies == ("ours", "ray-default", "hpa-qps", "oracle")
