from __future__ import annotations

import pytest

from tests.promql import Place, filled, of_dashboard, of_rules, parts, questions, series_of, unanswered

ON = "on (namespace, model)"


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        pytest.param("up", ["up"], id="nothing-to-part"),
        pytest.param("max by (model) (a) > 0.5", ["max by (model) (a)"], id="threshold"),
        pytest.param("a - on (x) b > 3", ["a - on (x) b"], id="threshold-of-a-difference"),
        pytest.param("a > b", ["a", "b"], id="threshold-that-is-measured"),
        pytest.param(f"a > 1 and {ON} 300 * b >= 10", ["a", "300 * b"], id="and"),
        pytest.param(f"(a >= 10\n or\n b > 0)\nunless {ON} c > 0", ["a", "b", "c"], id="parentheses-around-operands"),
        pytest.param("(a or b) / (c > 0)", ["(a or b) / (c > 0)"], id="inside-of-an-operand"),
        pytest.param("count(a unless a offset 30m)", ["count(a unless a offset 30m)"], id="inside-of-a-function"),
        pytest.param("absent(up{type=\"head\"} == 1)", ['up{type="head"}'], id="absent"),
        pytest.param('a{b="x > 1 and y"}', ['a{b="x > 1 and y"}'], id="operators-in-strings"),
        pytest.param('a{b=~"(x"} or b', ['a{b=~"(x"}', "b"], id="parentheses-in-strings"),
        pytest.param("(a) + (b)", ["(a) + (b)"], id="parentheses-that-do-not-hold-all"),
    ],
)  # fmt: skip
def test_what_must_have_data_is_found(expr: str, expected: list[str]) -> None:
    assert parts(expr) == expected


def test_parentheses_that_are_not_closed_are_told() -> None:
    with pytest.raises(ValueError, match="not closed"):
        parts("(a")


def test_variables_are_filled_in_and_other_dollars_stay() -> None:
    expr = 'label_replace(rate(a{n=~"$namespace", m="${model}"}[$__rate_interval]), "b", "$1", "c", "(.*)")'
    made = filled(expr, {"namespace": ".*", "model": "chat", "__rate_interval": "1m"})
    assert made == 'label_replace(rate(a{n=~".*", m="chat"}[1m]), "b", "$1", "c", "(.*)")'


def test_a_variable_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError, match="variant"):
        filled('a{v="$variant"}', {"model": "chat"})


def test_values_of_labels_come_from_series_that_have_them() -> None:
    assert series_of('label_values(a{n=~"x"}, model)') == 'count by (model) (a{n=~"x"})'
    with pytest.raises(ValueError, match="not label_values"):
        series_of("query_result(a)")


def test_every_expression_of_a_dashboard_is_found() -> None:
    board = {
        "uid": "b",
        "templating": {
            "list": [{"type": "datasource", "name": "d"}, {"type": "query", "name": "m", "query": "label_values(a, m)"}]
        },
        "panels": [
            {"type": "row", "title": "R"},
            {"title": "P", "targets": [{"refId": "A", "expr": "x"}, {"refId": "B", "expr": "y"}]},
        ],
    }
    assert [*of_dashboard(board)] == [
        Place("b: variable m", "count by (m) (a)"),
        Place("b: P A", "x"),
        Place("b: P B", "y"),
    ]


def test_every_expression_of_rules_is_found() -> None:
    groups = [{"rules": [{"record": "r", "expr": "x"}]}, {"rules": [{"alert": "A", "expr": "y"}]}]
    assert [*of_rules(groups)] == [Place("r", "x"), Place("A", "y")]


def test_rules_are_asked_for_whole_and_alerts_in_parts() -> None:
    board = {"uid": "b", "templating": {"list": []}, "panels": [{"title": "P", "targets": [{"refId": "A", "expr": "x[$w]"}]}]}
    groups = [{"rules": [{"record": "r", "expr": "x or 0 * y"}, {"alert": "A", "expr": "r > 1 and z > 2"}]}]
    assert [*questions([board], groups, variables={"w": "5m"})] == [
        Place("b: P A", "x[5m]"),
        Place("r", "x or 0 * y"),
        Place("A", "r"),
        Place("A", "z"),
    ]


def test_what_nothing_answers_is_told_unless_there_is_a_reason() -> None:
    asked = [Place("one", "a"), Place("two", "b / c"), Place("three", "rate(gpu[5m])")]
    answers = {"a": [1.0]}
    assert unanswered(asked, lambda expr: answers.get(expr, []), excused={"gpu": "there is none"}) == [Place("two", "b / c")]
