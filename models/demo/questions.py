"""Ask questions whose answer is one sentence of a passage."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from models.demo.corpus import Passage, is_prose

STOP_WORDS = set(
    """a an and are as at be been but by can do does for from has have how i if in into is it its may must my no not
    of on one or other should such than that the their them then there these they this to use used uses using was
    what when where which while will with would you your also any each only so some same all""".split()  # noqa: SIM905
)
# First words of docstrings, with other words that people ask by.
VERBS: dict[str, tuple[str, ...]] = {
    "return": ("get", "find", "return", "obtain"),
    "create": ("create", "make", "build"),
    "construct": ("construct", "create"),
    "read": ("read", "load"),
    "write": ("write", "save"),
    "remove": ("remove", "delete"),
    "delete": ("delete", "remove"),
    "convert": ("convert", "turn"),
    "test": ("test", "check"),
    "check": ("check", "test"),
    "compute": ("compute", "calculate"),
    "parse": ("parse", "read"),
    "raise": ("raise",),
    "print": ("print", "show"),
} | {
    verb: (verb,)
    for verb in """add append apply attach begin bind call change clear close compare compile compress concatenate connect
    copy decode define determine disable display emit enable encode ensure escape execute extract fill find
    flush force format generate get give handle implement import increment initialize insert install invoke
    iterate join list load lock log look make map match merge move open pack perform pop process provide push
    put query receive register release rename replace report reset resolve restore retrieve reverse rotate
    run save scan search seek select send set show shut signal skip sort split start stop store strip submit
    swap terminate transform truncate try unlink unpack update validate verify wait walk wrap yield""".split()  # noqa: SIM905
}
NAME_FORMS = (
    "What does {} do?",
    "What does {} do?",
    "What does {} do?",
    "What does {} do?",
    "What does {} do?",
    "What is {}?",
    "What is {}?",
    "What is {}?",
    "What is {}?",
    "What is {} for?",
    "What is {} used for?",
    "What is the purpose of {}?",
    "Explain {}.",
    "How does {} work?",
    "Describe {}.",
    "Tell me about {}.",
    "What happens when I call {}?",
    "How do I use {}?",
    "When should I use {}?",
    "What can I do with {}?",
    "{}",
    "{}?",
    "What does the {} function do?",
    "What is the {} class?",
    "What does {} return?",
    "what does {} do",
    "what is {}",
    "What does the documentation say about {}?",
)
ACTION_FORMS = (
    "Which function {s} {rest}?",
    "Which function {s} {rest}?",
    "How do I {v} {rest}?",
    "How do I {v} {rest}?",
    "How can I {v} {rest}?",
    "Which method {s} {rest}?",
    "What {s} {rest}?",
    "Is there a function to {v} {rest}?",
    "What is used to {v} {rest}?",
    "How to {v} {rest}?",
    "I want to {v} {rest}.",
    "Which class {s} {rest}?",
)
KEYWORD_FORMS = (
    "What about {}?",
    "What is said about {}?",
    "How do I {}?",
    "What is {}?",
    "What are {}?",
    "How does {} work?",
    "Can I {}?",
    "When is {}?",
    "Why {}?",
    "{}",
    "{}?",
    "Which {}?",
    "What does the documentation say about {}?",
    "Tell me about {}.",
    "What happens if {}?",
    "Where is {}?",
    "How is {}?",
    "What does {} mean?",
    "Is {}?",
)
ALL_FORMS = tuple(re.sub(r"\{\w*\}", "", form) for form in dict.fromkeys((*NAME_FORMS, *ACTION_FORMS, *KEYWORD_FORMS)))
DEFINITION = re.compile(r"^(?:An?|The) ((?:[\w*`-]+ ){1,3})(is|are)\b")


@dataclass(frozen=True)
class Question:
    """A question, and the sentence that answers it."""

    text: str
    answer: str
    kind: str
    name: str = ""  # what is asked for by name


def content_stems(text: str) -> set[str]:
    """Return the stems of the words that carry meaning."""
    words = re.findall(r"[A-Za-z][A-Za-z0-9]*", text)
    return {re.sub(r"(?<=...)(es|s|ing|ed|e)$", "", w.lower()) for w in words if w.lower() not in STOP_WORDS}


def ask(passage: Passage, rng: random.Random) -> Question | None:
    """Ask for a sentence of the passage, mostly its first; None when it has none to ask for."""
    kind = rng.choices(("name", "action", "keyword", "definition"), (5, 2, 2, 1))[0]
    sentences = passage.sentences if kind != "name" and rng.random() < 0.2 else passage.sentences[:1]
    sentence = rng.choice(sentences)
    if not is_prose(sentence) or passage.text.count(sentence) > 1:
        return None
    if kind == "name":
        return _by_name(passage, sentence, rng)
    text = _ASKERS[kind](sentence, rng)
    return Question(text, sentence, kind) if text else None


def _by_name(passage: Passage, sentence: str, rng: random.Random) -> Question | None:
    if not passage.name or not passage.opens:
        return None
    parts = passage.name.split(".")
    name = ".".join(parts[-rng.choice([1, 2, len(parts), len(parts)]) :])
    call = "()" * (passage.title.endswith(")") and rng.random() < 0.15)
    return Question(rng.choice(NAME_FORMS).format(name + call), sentence, "name", name)


def _by_definition(sentence: str, rng: random.Random) -> str | None:
    definition = DEFINITION.match(sentence)
    if definition is None:
        return None
    term = re.sub("[*`]", "", definition[1].strip())
    article = "an" if term[0] in "aeiou" else "a"
    singular = f"What is {article} {term}?"
    return rng.choice([singular, f"What does {term} mean?"]) if definition[2] == "is" else f"What are {term}?"


def _by_action(sentence: str, rng: random.Random) -> str | None:
    first, _, rest = " ".join(sentence.split()).partition(" ")
    verb = first.lower() if first.lower() in VERBS else first.lower().removesuffix("s")
    clause = re.split(r"[,;:(.]\s| (?:if|which|that|when|where|unless|or) |\.$", rest)[0]
    words = clause.split()[: rng.randint(4, 9)]
    words = [w for w in words if rng.random() > (0.25 if w.lower() in STOP_WORDS else 0.1)]
    while words and words[-1].lower() in STOP_WORDS:
        words.pop()
    if verb not in VERBS or not words:
        return None
    asked = rng.choice(VERBS[verb])
    third = asked + ("es" if asked.endswith(("s", "sh", "ch", "x")) else "s")
    return rng.choice(ACTION_FORMS).format(v=asked, s=third, rest=" ".join(words))


def _by_keywords(sentence: str, rng: random.Random) -> str | None:
    words = re.findall(r"[A-Za-z_][\w.]*\w", sentence)
    telling = [i for i, w in enumerate(words) if w.lower() not in STOP_WORDS]
    if len(telling) < 2:
        return None
    if rng.random() < 0.5:
        start = rng.randrange(len(words) - 1)
        chosen = words[start : start + rng.randint(3, 6)]
    else:
        chosen = [words[i] for i in sorted(rng.sample(telling, min(len(telling), rng.randint(2, 4))))]
    phrase = " ".join(chosen)
    return rng.choice(KEYWORD_FORMS).format(phrase) if content_stems(phrase) else None


_ASKERS: dict[str, Callable[[str, random.Random], str | None]] = {
    "action": _by_action,
    "keyword": _by_keywords,
    "definition": _by_definition,
}
