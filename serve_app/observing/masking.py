"""Masking: takes secrets out of texts before they are written anywhere.

Rules know secrets by their shape or by what stands before them. They would rather mask a word too many. Every rule
begins where a word does, so that a text costs time in proportion to its length, whoever wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from serve_app.linear_regex import LinearRegex

MASK = "[masked]"
MARGIN = 4096  # characters beyond a cut that are read too: a secret that the cut goes through is known by its whole shape
MOST_GROUPS = 6  # of digits in a card's number

_SHAPES = (
    r"manta_[a-z0-9-]{1,40}_[\w-]{20,}",
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA|ANVA)[A-Z0-9]{16}(?![A-Za-z0-9])",
    r"gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}",
    r"xox[a-z]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{10,}",
    r"AIza[\w-]{35,}|ya29\.[\w.-]{20,}",
    r"hf_[A-Za-z0-9]{20,}|gsk_[A-Za-z0-9]{20,}|nvapi-[\w-]{20,}|xai-[\w-]{20,}",
    r"[rsp]k_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{16,}",
    r"npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|SG\.[\w-]{16,}\.[\w-]{16,}|dop_v1_[a-f0-9]{20,}",
    r"eyJ[\w-]{10,}(?:\.[\w-]*){0,4}",  # a JSON Web Token
)
_NAMES = (
    r"pass(?:word|wd|phrase)|pwd|secret|token|credentials?|"
    r"(?:api|access|account|private|signing|encryption)[_-]?key"
)
_IS = r"\\{0,2}[\"']?\s{0,8}(?:=>|[:=])\s{0,8}"
# In quotes, in the quotes of JSON within a text, or up to the next blank.
_VALUE = r"([\"'])(?:(?!\2)[^\\\n]|\\.)+|(\\{1,2}[\"'])[^\"'\\\n]+|[^\s\"',;\\)}\]]{4,}"
_DOUBLED = {str(digit): sum(divmod(2 * digit, 10)) for digit in range(10)}
_KEY = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"


class Rule(NamedTuple):
    """One kind of secret. ``replace`` is what ``re.sub`` takes; a text without any of the ``hints`` has none of the kind."""

    pattern: re.Pattern[str]
    replace: str | Callable[[re.Match[str]], str] = MASK
    hints: tuple[str, ...] = ()  # in lower case


def _has_digit(found: re.Match[str]) -> str:
    return MASK if re.search(r"[A-Z0-9]", found[0]) else found[0]


def _cards(found: re.Match[str]) -> str:
    """Return a run of digit groups, with those masked that together are a card's number."""
    text = found[0]
    groups = [(each.start(), each.end()) for each in re.finditer(r"\d+", text)]
    digits = [0, *accumulate(end - start for start, end in groups)]
    made, at, first = [], 0, 0
    while first < len(groups):
        start = groups[first][0]
        lasts = range(first, min(first + MOST_GROUPS, len(groups)))
        fits = [last for last in lasts if 13 <= digits[last + 1] - digits[first] <= 19]
        last = next((last for last in reversed(fits) if _is_card(text[start : groups[last][1]])), None)
        if last is not None:
            made += [text[at:start], MASK]
            at = groups[last][1]
        first = first + 1 if last is None else last + 1
    return "".join((*made, text[at:]))


def _is_card(text: str) -> bool:
    """Whether digits begin as a card's number does and have its check digit (Luhn)."""
    if text[0] not in "23456":
        return False
    digits = text.replace(" ", "").replace("-", "")
    return (sum(map(int, digits[::-2])) + sum(map(_DOUBLED.__getitem__, digits[-2::-2]))) % 10 == 0


RULES = (
    # Whole keys first: the rules below would stop at the first blank. A key without an end is masked to the end of the text.
    Rule(re.compile(rf"-----BEGIN {_KEY}.*?(?:-----END {_KEY}|\Z)", re.DOTALL), hints=("private key",)),
    Rule(re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), hints=("://",)),  # user and password in a URL
    Rule(
        re.compile(r"(authorization[\"']?\s{0,8}[:=]\s{0,8}[\"']?(?:\w{1,20}\s{1,8})?)[^\s\"']{8,}", re.IGNORECASE),
        rf"\1{MASK}",
        ("authorization",),
    ),
    Rule(re.compile(r"(?<![A-Za-z])(bearer\s{1,8})[\w.~+/=-]{20,}", re.IGNORECASE), rf"\1{MASK}", ("bearer",)),
    # OpenAI's, Anthropic's and others' keys; names such as sk-learn-like-things have no digit.
    Rule(re.compile(r"(?<![A-Za-z0-9])sk-[\w-]{16,}", re.ASCII), _has_digit, ("sk-",)),
    Rule(re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(_SHAPES)})", re.ASCII)),
    Rule(
        re.compile(rf"((?:{_NAMES}){_IS})(?!\[masked\])(?:{_VALUE})", re.IGNORECASE),
        lambda found: f"{found[1]}{found[2] or found[3] or ''}{MASK}",
        ("pass", "pwd", "secret", "token", "credential", "key"),
    ),
    # An e-mail address is nobody's secret, yet somebody.
    Rule(re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), hints=("@",)),
    Rule(re.compile(r"(?<!\d)\d(?:[ -]?\d){12,}(?!\d)", re.ASCII), _cards),
)


class Masker:
    """Masks what the rules know, and what an operator's expressions match."""

    def __init__(self, expressions: Iterable[str] = ()) -> None:
        self._expressions = [LinearRegex(each) for each in expressions]

    def mask(self, texts: list[str]) -> list[str]:
        """Return texts without the secrets that are known."""
        masked = [_masked(text) for text in texts]
        for expression in self._expressions:
            masked = expression.replace(masked, MASK)
        return masked

    def heads(self, texts: Sequence[str], chars: Sequence[int]) -> list[str]:
        """Return the beginning of each text, masked before it is cut: half a secret would not be known as one."""
        windows = [text[: most + MARGIN] for text, most in zip(texts, chars, strict=True)]
        return [
            # What masking has moved up from the end of a window may be half a secret.
            (masked if len(window) == len(text) else masked[: max(0, len(masked) - MARGIN)])[:most]
            for masked, window, text, most in zip(self.mask(windows), windows, texts, chars, strict=True)
        ]


def _masked(text: str) -> str:
    lower = text.lower()
    for rule in RULES:
        if not rule.hints or any(hint in lower for hint in rule.hints):
            text = rule.pattern.sub(rule.replace, text)
    return text
