"""Ask questions whose answer is one sentence of a set of passages."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from passages import Passage, Span

STOP_WORDS = set(
    "a an and are as at be been but by can do does for from has have how i if in into is it its "
    "may must my no not of on one or other should such than that the their them then there these "
    "they this to use used uses using was what when where which while will with would you your "
    "also any each only so some same all".split()
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
    for verb in (
        "add append apply attach begin bind call change clear close compare compile compress "
        "concatenate connect copy decode define determine disable display emit enable encode "
        "ensure escape execute extract fill find flush force format generate get give handle "
        "implement import increment initialize insert install invoke iterate join list load lock "
        "log look make map match merge move open pack perform pop process provide push put query "
        "receive register release rename replace report reset resolve restore retrieve reverse "
        "rotate run save scan search seek select send set show shut signal skip sort split start "
        "stop store strip submit swap terminate transform truncate try unlink unpack update "
        "validate verify wait walk wrap yield"
    ).split()
}
NAME_FORMS = (
    ["What does {} do?"] * 5
    + ["What is {}?"] * 4
    + ["What is {} for?", "What is {} used for?", "What is the purpose of {}?", "Explain {}."]
    + ["How does {} work?", "Describe {}.", "Tell me about {}.", "What happens when I call {}?"]
    + ["How do I use {}?", "When should I use {}?", "What can I do with {}?", "{}", "{}?"]
    + ["What does the {} function do?", "What is the {} class?", "What does {} return?"]
    + ["what does {} do", "what is {}", "What does the documentation say about {}?"]
)
ACTION_FORMS = (
    ["Which function {s} {rest}?", "Which function {s} {rest}?", "How do I {v} {rest}?"]
    + ["How do I {v} {rest}?", "How can I {v} {rest}?", "Which method {s} {rest}?"]
    + ["What {s} {rest}?", "Is there a function to {v} {rest}?", "What is used to {v} {rest}?"]
    + ["How to {v} {rest}?", "I want to {v} {rest}.", "Which class {s} {rest}?"]
)
KEYWORD_FORMS = (
    ["What about {}?", "What is said about {}?", "How do I {}?", "What is {}?", "What are {}?"]
    + ["How does {} work?", "Can I {}?", "When is {}?", "Why {}?", "{}", "{}?", "Which {}?"]
    + ["What does the documentation say about {}?", "Tell me about {}.", "What happens if {}?"]
    + ["Where is {}?", "How is {}?", "What does {} mean?", "Is {}?"]
)
DEFINITION = re.compile(r"^(?:An?|The) ((?:[\w*`-]+ ){1,3})(is|are)\b")


@dataclass(frozen=True)
class Question:
    """A question, the sentence that answers it and its passage's number."""

    text: str
    answer: str
    number: int
    kind: str


def stem(word: str) -> str:
    """Fold case and the commonest endings, as a reader would."""
    return re.sub(r"(?<=...)(es|s|ing|ed|e)$", "", word.lower())


def content_stems(text: str) -> set[str]:
    """Return the stems of the words that carry meaning."""
    words = re.findall(r"[A-Za-z][A-Za-z0-9]*", text)
    return {stem(w) for w in words if w.lower() not in STOP_WORDS}


def ask(passages: Sequence[Passage], rng: random.Random, wanted: int) -> list[Question]:
    """Return up to ``wanted`` questions that have exactly one best answer."""
    places = [(n, span) for n, p in enumerate(passages, 1) for span in p.spans]
    spans = [span for _, span in places]
    rng.shuffle(places)
    questions: list[Question] = []
    # Introductions come first: they are what is mostly asked for.
    places.sort(key=lambda place: not place[1].names or rng.random() < 0.3)
    for number, span in places * 2:
        if len(questions) == wanted:
            break
        repeated = sum(other.sentence == span.sentence for other in spans) > 1
        if repeated or not 12 <= len(span.sentence) <= 280:
            continue
        made = _ask_about(span, spans, rng)
        if made and made[0] not in {q.text for q in questions}:
            questions.append(Question(made[0], span.sentence, number, made[1]))
    return questions


def _ask_about(span: Span, spans: list[Span], rng: random.Random) -> tuple[str, str] | None:
    if span.names and rng.random() < 0.55:
        return _by_name(span, spans, rng)
    definition = DEFINITION.match(span.sentence)
    if definition and rng.random() < 0.6:
        term = definition[1].strip().replace("*", "").replace("`", "")
        article = "an" if term[0] in "aeiou" else "a"
        text = f"What is {article} {term}?" if definition[2] == "is" else f"What are {term}?"
        return (text, "definition") if _is_unique(term, span, spans) else None
    first, _, rest = span.sentence.partition(" ")
    verb = first.lower() if first.lower() in VERBS else first.lower().removesuffix("s")
    if verb in VERBS and rng.random() < 0.7:
        return _by_action(verb, rest, span, spans, rng)
    return _by_keywords(span, spans, rng)


def _by_name(span: Span, spans: list[Span], rng: random.Random) -> tuple[str, str] | None:
    name = rng.choice(span.names)
    last = name.rsplit(".", 1)[-1]
    if sum(last in other.names or name in other.names for other in spans) > 1:
        return None
    if span.kind in ("function", "method") and rng.random() < 0.2:
        name += "()"
    if span.kind == "topic" and rng.random() < 0.5:
        name = name.lower()
    return rng.choice(NAME_FORMS).format(name), "name"


def _by_action(
    verb: str, rest: str, span: Span, spans: list[Span], rng: random.Random
) -> tuple[str, str] | None:
    clause = re.split(r"[,;:(.]\s| (?:if|which|that|when|where|unless|or) |\.$", rest)[0]
    words = clause.split()[: rng.randint(4, 9)]
    words = [w for w in words if rng.random() > (0.25 if w.lower() in STOP_WORDS else 0.1)]
    if not words or not _is_unique(" ".join(words), span, spans):
        return None
    while words[-1].lower() in STOP_WORDS:
        words.pop()
    asked = rng.choice(VERBS[verb])
    third = asked + ("es" if asked.endswith(("s", "sh", "ch", "x")) else "s")
    form = rng.choice(ACTION_FORMS)
    return form.format(v=asked, s=third, rest=" ".join(words)), "action"


def _by_keywords(span: Span, spans: list[Span], rng: random.Random) -> tuple[str, str] | None:
    words = re.findall(r"[A-Za-z_][\w.]*\w", span.sentence)
    if len(words) < 3:
        return None
    if rng.random() < 0.5:
        start = rng.randrange(len(words) - 1)
        chosen = words[start : start + rng.randint(2, 5)]
    else:
        telling = [i for i, w in enumerate(words) if w.lower() not in STOP_WORDS]
        picked = sorted(rng.sample(telling, min(len(telling), rng.randint(2, 4))))
        chosen = [words[i] for i in picked]
    phrase = " ".join(chosen)
    if len(content_stems(phrase)) < 1 or not _is_unique(phrase, span, spans):
        return None
    return rng.choice(KEYWORD_FORMS).format(phrase), "keyword"


def _is_unique(phrase: str, span: Span, spans: list[Span]) -> bool:
    """Whether ``span`` holds more of the phrase's words than any other sentence."""
    wanted = content_stems(phrase)
    others = (s for s in spans if s is not span)
    texts = [" ".join((other.sentence, *other.names)) for other in others]
    best = max((len(wanted & content_stems(text)) for text in texts), default=0)
    return bool(wanted) and len(wanted & content_stems(span.sentence)) > best
