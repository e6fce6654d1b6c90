"""Expressions of Prometheus: where the chart has them, and the parts of each that must have data on a platform that works."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

_OPEN, _CLOSE = "([{", ")]}"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SET = re.compile(r"\s(?:and|or|unless)\b(?:\s*(?:on|ignoring)\s*\([^)]*\))?\s")
_COMPARISON = re.compile(r"\s(?:==|!=|>=|<=|>|<)\s")
_ABSENT = re.compile(r"absent(?:_over_time)?\((.*)\)", re.DOTALL)
_LABEL_VALUES = re.compile(r"label_values\((.*), (\w+)\)")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([a-z_]\w*))")


@dataclass(frozen=True, slots=True)
class Place:
    """Where an expression stands, and the expression."""

    where: str
    expr: str


def of_dashboard(board: Json) -> Iterator[Place]:
    """Yield every expression of a dashboard: those of its panels, and those that its variables take their values from."""
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield Place(f"{board['uid']}: variable {variable['name']}", series_of(variable["query"]))
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield Place(f"{board['uid']}: {panel['title']} {target['refId']}", target["expr"])


def of_rules(groups: Sequence[Json]) -> Iterator[Place]:
    """Yield every expression of groups of rules."""
    for group in groups:
        for rule in group["rules"]:
            yield Place(rule.get("alert") or rule["record"], rule["expr"])


def questions(boards: Iterable[Json], groups: Sequence[Json], *, variables: Mapping[str, str]) -> Iterator[Place]:
    """Yield what a Prometheus that scrapes a platform must have an answer to.

    That is every expression of a dashboard and every recorded one; of an alert, which has none while all is well, its parts.
    """
    for board in boards:
        yield from (Place(place.where, filled(place.expr, variables)) for place in of_dashboard(board))
    alerts = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    for place in of_rules(groups):
        yield from (Place(place.where, part) for part in (parts(place.expr) if place.where in alerts else [place.expr]))


def unanswered(asked: Iterable[Place], ask: Callable[[str], Sequence[object]], *, excused: Mapping[str, str]) -> list[Place]:
    """Return the questions that nothing answers; ``excused``: names of series that are not there, and why."""
    return [place for place in asked if not any(name in place.expr for name in excused) and not ask(place.expr)]


def series_of(query: str) -> str:
    """Return the expression behind Grafana's ``label_values(series, label)``: it has data when there is a value."""
    found = _LABEL_VALUES.fullmatch(query)
    if found is None:
        raise ValueError(f"not label_values(series, label): {query}")
    return f"count by ({found[2]}) ({found[1]})"


def filled(expr: str, variables: Mapping[str, str]) -> str:
    """Return an expression with Grafana's variables filled in. Raises KeyError for one without a value."""
    return _VARIABLE.sub(lambda found: variables[found[1] or found[2]], expr)


def parts(expr: str) -> list[str]:
    """Return what an expression is made of, each without what keeps it empty while all is well.

    Set operators (``and``, ``or``, ``unless``) outside of functions part it, and each part loses its comparison with a
    threshold. Of ``absent(x)`` it is ``x`` that must be there.
    """
    expr = _bare(expr)
    split = _split(expr, _SET)
    if len(split) > 1:
        return [part for each in split for part in parts(each)]
    compared = _split(expr, _COMPARISON)
    if len(compared) > 1:
        return [part for each in compared if not _is_number(each) for part in parts(each)]
    if (found := _ABSENT.fullmatch(expr)) is not None:
        return parts(found[1])
    return [expr]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _bare(expr: str) -> str:
    """Return an expression without parentheses that hold all of it."""
    expr = expr.strip()
    while expr.startswith("(") and _end_of_group(expr) == len(expr):
        expr = expr[1:-1].strip()
    return expr


def _end_of_group(expr: str) -> int:
    depth = 0
    for at, letter in enumerate(_masked(expr)):
        depth += (letter in _OPEN) - (letter in _CLOSE)
        if depth == 0:
            return at + 1
    raise ValueError(f"parentheses are not closed: {expr}")


def _split(expr: str, operator: re.Pattern[str]) -> list[str]:
    """Return the operands of the operators outside of all parentheses."""
    made, at = [], 0
    for found in operator.finditer(_outside(expr)):
        made.append(expr[at : found.start()])
        at = found.end()
    return [each.strip() for each in [*made, expr[at:]]]


def _masked(expr: str) -> str:
    """Return an expression of the same length in which nothing of a string looks like an operator or a parenthesis."""
    return _STRING.sub(lambda found: "_" * len(found[0]), expr)


def _outside(expr: str) -> str:
    """Return an expression of the same length in which nothing inside of parentheses looks like an operator."""
    made, depth = [], 0
    for letter in _masked(expr):
        depth -= letter in _CLOSE
        made.append(letter if depth == 0 else "_")
        depth += letter in _OPEN
    return "".join(made)
