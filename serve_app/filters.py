"""Filters on documents' attributes, in OpenAI's form: parsed once, and what they mean."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias, cast, get_args

from serve_app.errors import BadRequest

Scalar: TypeAlias = str | float | bool  # what one attribute may be; whole numbers stay `int`
Attributes: TypeAlias = Mapping[str, Scalar]
ComparisonOp = Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
CompoundOp = Literal["and", "or"]

MAX_DEPTH = 8  # filters inside filters
MAX_COMPARISONS = 64
MAX_LIST_VALUES = 256
MAX_KEY_CHARS = 64
MAX_VALUE_CHARS = 512
DOCUMENT_ID, TITLE = "document_id", "title"  # keys that every document has, whatever its attributes

_ORDERS: Mapping[str, Callable[[float | str, float | str], bool]] = MappingProxyType(
    {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One attribute against a value, or for `in` and `nin` against several."""

    op: ComparisonOp
    key: str
    value: Scalar | tuple[Scalar, ...]

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The value or values, as a tuple."""
        return self.value if isinstance(self.value, tuple) else (self.value,)


@dataclass(frozen=True, slots=True)
class Compound:
    """All (`and`) or at least one (`or`) of some filters."""

    op: CompoundOp
    filters: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Compound


def matches(wanted: Filter, attributes: Attributes) -> bool:
    """Whether a document passes; the reference for what stores do.

    Values of different kinds (string, number, bool) are unequal and have no order. A document without the attribute
    passes `ne` and `nin` only, so these two are always the opposites of `eq` and `in`.
    """
    if isinstance(wanted, Compound):
        passes = (matches(part, attributes) for part in wanted.filters)
        return all(passes) if wanted.op == "and" else any(passes)
    found = attributes.get(wanted.key)
    if (order := _ORDERS.get(wanted.op)) is not None:
        return found is not None and any(_same_kind(found, v) and order(found, v) for v in wanted.values)
    is_among = found is not None and any(_same_kind(found, v) and found == v for v in wanted.values)
    return is_among == (wanted.op in ("eq", "in"))


def _same_kind(left: Scalar, right: Scalar) -> bool:
    return kind_of(left) == kind_of(right)


def kind_of(value: Scalar) -> Literal["bool", "string", "number"]:
    """Return what a value is compared as; Python takes True for a number, filters do not."""
    if isinstance(value, bool):
        return "bool"
    return "string" if isinstance(value, str) else "number"


def parse_filter(value: object, *, param: str) -> Filter:
    """Return the filter in a request's ``{type, key, value}`` or ``{type: and|or, filters: [...]}``.

    Raises:
        BadRequest: ``param`` names the member at fault, such as ``filters.filters[1].value``.
    """
    parsed = _parse(value, param, depth=1)
    if (count := _comparisons(parsed)) > MAX_COMPARISONS:
        raise BadRequest(f"{param} has {count} comparisons; at most {MAX_COMPARISONS} are allowed", param=param)
    return parsed


def _comparisons(wanted: Filter) -> int:
    return 1 if isinstance(wanted, Comparison) else sum(map(_comparisons, wanted.filters))


def _parse(value: object, param: str, *, depth: int) -> Filter:
    if depth > MAX_DEPTH:
        raise BadRequest(f"{param} is nested deeper than {MAX_DEPTH} levels", param=param)
    if not isinstance(value, Mapping):
        raise BadRequest(f"{param} must be an object with `type`, got {type(value).__name__}", param=param)
    op = value.get("type")
    if op in get_args(CompoundOp):
        _refuse_others(value, {"type", "filters"}, param)
        return Compound(cast(CompoundOp, op), _parse_parts(value.get("filters"), f"{param}.filters", depth=depth))
    if op in get_args(ComparisonOp):
        _refuse_others(value, {"type", "key", "value"}, param)
        comparison = cast(ComparisonOp, op)
        key = _key(value.get("key"), f"{param}.key")
        return Comparison(comparison, key, _value(comparison, value.get("value"), param=f"{param}.value"))
    known = ", ".join((*get_args(ComparisonOp), *get_args(CompoundOp)))
    raise BadRequest(f"{param}.type must be one of {known}", param=f"{param}.type")


def _refuse_others(value: Mapping[object, object], known: set[str], param: str) -> None:
    if others := sorted(str(name)[:MAX_KEY_CHARS] for name in value.keys() - known):
        raise BadRequest(f"{param}.{others[0]} is not a member of this filter", param=f"{param}.{others[0]}")


def _parse_parts(value: object, param: str, *, depth: int) -> tuple[Filter, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
        raise BadRequest(f"{param} must be a list of at least one filter", param=param)
    if len(value) > MAX_COMPARISONS:
        raise BadRequest(f"{param} has {len(value)} filters; at most {MAX_COMPARISONS} are allowed", param=param)
    return tuple(_parse(part, f"{param}[{i}]", depth=depth + 1) for i, part in enumerate(value))


def _key(value: object, param: str) -> str:
    if not isinstance(value, str) or not value:
        raise BadRequest(f"{param} must be the name of an attribute", param=param)
    return check_text(value, param=param, most=MAX_KEY_CHARS)


def _value(op: str, value: object, *, param: str) -> Scalar | tuple[Scalar, ...]:
    if op in ("in", "nin"):
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or not value:
            raise BadRequest(f"{param} must be a list of at least one value for {op!r}", param=param)
        if len(value) > MAX_LIST_VALUES:
            raise BadRequest(f"{param} has {len(value)} values; at most {MAX_LIST_VALUES} are allowed", param=param)
        return tuple(check_scalar(item, param=f"{param}[{i}]") for i, item in enumerate(value))
    scalar = check_scalar(value, param=param)
    if op in _ORDERS and isinstance(scalar, bool):
        raise BadRequest(f"{param} must be a number or a string for {op!r}: true and false have no order", param=param)
    return scalar


def check_scalar(value: object, *, param: str) -> Scalar:
    """Return a string, number or bool that an attribute may have. Raises BadRequest for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, param=param, most=MAX_VALUE_CHARS)
    if isinstance(value, int | float) and _is_double(value):
        return value
    raise BadRequest(f"{param} must be a string, a finite number, true or false", param=param)


def check_text(value: str, *, param: str, most: int) -> str:
    """Return a text of at most ``most`` characters that UTF-8 can hold. Raises BadRequest for any other."""
    if len(value) > most:
        raise BadRequest(f"{param} has {len(value)} characters; at most {most} are allowed", param=param)
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise BadRequest(f"{param} holds half of a surrogate pair, which is no text", param=param) from err
    return value


def _is_double(value: float) -> bool:
    """Whether JSON readers everywhere agree on the number: finite, and a whole one exact as a double."""
    if isinstance(value, int):
        return abs(value) <= 2**53
    return math.isfinite(value)
