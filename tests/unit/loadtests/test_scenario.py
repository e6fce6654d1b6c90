from __future__ import annotations

from pathlib import Path

import pytest

from loadtests.scenario import Scenario
from loadtests.scenario_file import bundled, load_gates, load_scenario, scenario_text
from serve_app.config_error import ConfigError

GOOD = """\
name: mine
load:
  mode: open
  shape: {kind: constant, level: 2}
mix:
  - {kind: chat, model: chat}
duration: 1m
"""


def written(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load_scenario(path)
    return str(caught.value).replace(path, "mine.yaml")


@pytest.mark.parametrize("name", bundled())
def test_every_bundled_scenario_is_valid(name: str) -> None:
    assert load_scenario(name).scenario.name == name


def test_the_example_of_gates_is_valid() -> None:
    assert load_gates(Path("loadtests/gates.yaml")).error_rate == 0.01


def test_a_file_is_a_scenario(tmp_path: Path) -> None:
    found = load_scenario(written(tmp_path, GOOD), url="http://10.0.0.1:80")
    assert (found.scenario.duration, found.scenario.target.url, found.folder) == (60.0, "http://10.0.0.1:80", tmp_path)
    assert [entry.label for entry in found.scenario.mix] == ["chat"]


def test_a_scenario_survives_its_own_json(tmp_path: Path) -> None:
    made = load_scenario(written(tmp_path, GOOD)).scenario
    assert Scenario.model_validate(made.model_dump(mode="json", exclude_unset=True)) == made


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param(
            "level: 2", "level: 2, peak: 3", "mine.yaml:4: load.shape.peak: `kind: constant` has no use for it", id="misfit"
        ),
        pytest.param("kind: constant, level: 2", "kind: ramp", "load.shape.peak: `kind: ramp` needs it", id="missing"),
        pytest.param(
            "kind: constant, level: 2", "kind: step, levels: []", "load.shape.levels: must not be empty", id="no-levels"
        ),
        pytest.param(
            "kind: constant, level: 2", "kind: replay, trace: ''", "load.shape.trace: must not be empty", id="no-trace"
        ),
        pytest.param("kind: constant, level: 2", "kind: replay, trace: gone.csv", "there is no file", id="trace-is-gone"),
        pytest.param("mode: open", "mode: open\n  think: 2s", "load.think: nobody waits for answers", id="open-think"),
        pytest.param("mode: open", "mode: closed", "fine", id="closed"),
        pytest.param("level: 2}", "level: 2, cv: 3}", "fine", id="bursts"),
        pytest.param("chat, model: chat}", "chat}", "mix[0].model: `kind: chat` needs it", id="no-model"),
        pytest.param(
            "{kind: chat, model: chat}", "{kind: chat, model: chat, turns: 3}", "mix[0].turns: `kind: chat`", id="turns"
        ),
        pytest.param("model: chat}", "model: chat, lenghts: {}}", "unknown field `lenghts`", id="typo"),
        pytest.param("1m", "never", "duration: 'never' is no duration", id="no-duration"),
        pytest.param(
            "  - {kind: chat, model: chat}\n", "  - {kind: chat, model: chat}\n" * 2, "'chat' stands here twice", id="twice"
        ),
        pytest.param(
            "model: chat}", "model: chat, lengths: {prompt: {tokens: 3, mean: 4}}}", "give `tokens`, or", id="two-ways"
        ),
        pytest.param(
            "model: chat}",
            "model: chat, lengths: {output: {median: 9, mean: 4, most: 9}}}",
            "must be at least `median`, 9",
            id="mean-under-median",
        ),
    ],
)
def test_a_mistake_is_told_with_its_field(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = GOOD.replace(old, new)
    if said == "fine":
        assert load_scenario(written(tmp_path, text)).scenario.name == "mine"
    else:
        assert said in refused(tmp_path, text)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        pytest.param("{kind: replay, trace: t.csv}", "`replay` needs `mode: open`", id="replay"),
        pytest.param("{kind: constant, level: 2, cv: 2}", "`cv` needs `mode: open`", id="cv"),
    ],
)
def test_users_have_no_schedule(tmp_path: Path, shape: str, said: str) -> None:
    text = GOOD.replace("mode: open", "mode: closed").replace("{kind: constant, level: 2}", shape)
    assert said in refused(tmp_path, text)


def test_what_is_no_yaml_and_what_stands_twice_is_told(tmp_path: Path) -> None:
    assert "no valid YAML" in refused(tmp_path, "name: [")
    assert "`name` stands here twice" in refused(tmp_path, GOOD + "name: again\n")


def test_a_name_that_nobody_knows_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="did you mean `smoke`"):
        load_scenario("smoek")
    with pytest.raises(ConfigError, match="no-such-file"):
        load_scenario("no-such-file.yaml")
    with pytest.raises(ConfigError, match="no-such-file"):
        scenario_text("no-such-file.yaml")


def test_a_bad_url_is_told_as_the_option() -> None:
    with pytest.raises(ConfigError, match="--url: expected an address"):
        load_scenario("smoke", url="localhost")


def test_a_scenarios_text_is_its_file() -> None:
    assert "name: smoke" in scenario_text("smoke")
