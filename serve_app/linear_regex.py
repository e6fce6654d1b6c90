"""LinearRegex: an operator's regular expression over clients' text. Matching takes linear time, whatever either of them wrote.

Python's ``re`` backtracks: an expression such as ``(a+)+$`` and thirty letters of a client's would stop a Router for minutes.
RE2, which comes with pyarrow, cannot; it has no look-around and no back-references.
"""

from __future__ import annotations

from typing import Any


class LinearRegex:
    """A compiled expression. Raises ValueError: RE2 cannot read it, or it matches the empty text; the message says which."""

    def __init__(self, expression: str) -> None:
        import pyarrow  # a quarter of a second, so only where expressions are configured
        import pyarrow.compute

        self._array: Any = pyarrow.array
        self._text: Any = pyarrow.string()
        self._replace: Any = pyarrow.compute.replace_substring_regex
        self._expression = expression
        try:
            matches_nothing = self.replace([""], "x") != [""]
        except pyarrow.ArrowInvalid as err:
            said = str(err).partition(": ")[2] or str(err)
            raise ValueError(f"{said}; RE2 has no look-around and no back-references") from err
        if matches_nothing:
            raise ValueError("it matches the empty text, so it would mask everywhere")

    def replace(self, texts: list[str], by: str) -> list[str]:
        """Return texts with every match replaced; a backslash in ``by`` would name a group."""
        # Half a surrogate pair, which JSON may hold, is no text that RE2 takes.
        whole = self._array([text.encode("utf-8", "replace").decode() for text in texts], self._text)
        made: list[str] = self._replace(whole, pattern=self._expression, replacement=by).to_pylist()
        return made
