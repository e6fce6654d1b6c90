"""Attributes of documents as columns of a collection, and filters on them as SQL.

Three lists of equal length per row: a key with its kind, the text if it is one, the number if it is one. LanceDB then
finds a value by its key's position, in one pass over the rows and before anything is ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from serve_app.filters import DOCUMENT_ID, TITLE, Comparison, Filter, Scalar, kind_of

if TYPE_CHECKING:
    import pyarrow as pa

KEYS, TEXTS, NUMBERS = "attribute_keys", "attribute_texts", "attribute_numbers"
ATTRIBUTE_COLUMNS = (KEYS, TEXTS, NUMBERS)
_OPERATORS = {"eq": "=", "ne": "=", "in": "=", "nin": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def attribute_fields() -> list[pa.Field]:
    """Return the columns."""
    import pyarrow as pa

    kinds = {KEYS: pa.string(), TEXTS: pa.string(), NUMBERS: pa.float64()}
    return [pa.field(name, pa.list_(kind), nullable=False) for name, kind in kinds.items()]


def attribute_values(attributes: Mapping[str, Scalar], *, document_id: str, title: str) -> dict[str, list[Any]]:
    """Return what the columns hold for a document; its id and title are attributes too, unless it sets its own."""
    entries: dict[str, Scalar] = {DOCUMENT_ID: document_id, TITLE: title, **attributes}
    return {
        KEYS: [_kind_and_key(key, value) for key, value in entries.items()],
        TEXTS: [value if isinstance(value, str) else "" for value in entries.values()],
        NUMBERS: [0.0 if isinstance(value, str) else _number(value) for value in entries.values()],
    }


def attribute_updates(attributes: Mapping[str, Scalar]) -> dict[str, str]:
    """Return column -> SQL that gives stored rows these attributes, next to the id and title that they have."""
    keys = [_quoted(_kind_and_key(key, value)) for key, value in attributes.items()]
    texts = [_quoted(value if isinstance(value, str) else "") for value in attributes.values()]
    numbers = [_literal(0.0 if isinstance(value, str) else value) for value in attributes.values()]
    built_in = [name for name in (DOCUMENT_ID, TITLE) if name not in attributes]
    return {
        KEYS: _array([_quoted(_kind_and_key(name, "")) for name in built_in] + keys, "VARCHAR"),
        TEXTS: _array(built_in + texts, "VARCHAR"),  # both are columns of the same name
        NUMBERS: _array([_literal(0.0)] * len(built_in) + numbers, "DOUBLE"),
    }


def condition(wanted: Filter, *, has_attributes: bool) -> str:
    """Return the SQL of a filter; it is true or false for every row, never null.

    Args:
        wanted: the filter.
        has_attributes: whether the collection has the columns; one that was made before them has documents without
            attributes, which still have an id and a title.
    """
    if isinstance(wanted, Comparison):
        return _comparison(wanted, has_attributes=has_attributes)
    parts = (condition(part, has_attributes=has_attributes) for part in wanted.filters)
    return "(" + f" {wanted.op.upper()} ".join(parts) + ")"


def _comparison(wanted: Comparison, *, has_attributes: bool) -> str:
    tests = [
        f"{found} {_OPERATORS[wanted.op]} {_literal(value)}"
        for value in wanted.values
        if (found := _found(wanted.key, value, has_attributes=has_attributes)) is not None
    ]
    # A row without the attribute compares as null, which is "no" for every operator.
    passes = f"COALESCE({' OR '.join(f'COALESCE({test}, FALSE)' for test in tests) or 'FALSE'}, FALSE)"
    return f"(NOT {passes})" if wanted.op in ("ne", "nin") else passes


def _found(key: str, value: Scalar, *, has_attributes: bool) -> str | None:
    """Return the SQL that gives a row's value of the same key and kind, or None when no row can have one."""
    if not has_attributes:
        return key if key in (DOCUMENT_ID, TITLE) and isinstance(value, str) else None
    column = TEXTS if isinstance(value, str) else NUMBERS
    return f"array_element({column}, CAST(array_position({KEYS}, {_quoted(_kind_and_key(key, value))}) AS BIGINT))"


def _kind_and_key(key: str, value: Scalar) -> str:
    return f"{kind_of(value)}:{key}"


def _number(value: float) -> float:
    return float(value) + 0.0  # Arrow tells -0.0 from 0.0; adding turns the one into the other


def _literal(value: Scalar) -> str:
    return _quoted(value) if isinstance(value, str) else f"CAST('{_number(value)!r}' AS DOUBLE)"


def _quoted(value: str) -> str:
    # Quotes inside are doubled, so a value never ends the literal.
    return "'" + value.replace("'", "''") + "'"


def _array(items: Sequence[str], kind: str) -> str:
    return f"make_array({', '.join(f'CAST({item} AS {kind})' for item in items)})"
