"""OpenAI's SDK: a pipeline, called as if it were a model."""

from __future__ import annotations

from typing import Any

import openai
from openai.types.chat import ChatCompletion, ChatCompletionMessageParam

from tests.e2e.clients.checks import ABOUT, QUESTION, Checks, error_of
from tests.e2e.clients.openai_client import QUESTIONS, client, text_of

check = Checks()


def citations_of(document: Any) -> list[dict[str, Any]]:
    citations: list[dict[str, Any]] = (document.model_extra or {})["citations"]
    assert citations
    for i, citation in enumerate(citations, start=1):
        assert citation["number"] == i
        assert citation["document_id"]
        assert citation["quote"] in citation["text"]
        assert citation["start"] < citation["end"]
    assert ABOUT in {citation["document_id"] for citation in citations}
    return citations


@check("pipeline")
def pipeline() -> str:
    answer = client.chat.completions.create(model="docs-assistant", messages=QUESTIONS, temperature=0)
    assert answer.model == "docs-assistant"
    assert answer.usage is not None
    assert answer.choices[0].message.content
    citations = citations_of(answer)
    return f"{answer.choices[0].message.content} ({len(citations)} citations)"


@check("pipeline-stream")
def pipeline_stream() -> str:
    whole = client.chat.completions.create(model="docs-assistant", messages=QUESTIONS, temperature=0)
    chunks = list(client.chat.completions.create(model="docs-assistant", messages=QUESTIONS, temperature=0, stream=True))
    assert text_of(chunks) == whole.choices[0].message.content
    assert {c.model for c in chunks} == {"docs-assistant"}
    [last] = [c for c in chunks if c.choices and c.choices[0].finish_reason]
    assert citations_of(last) == citations_of(whole)
    return f"{len(chunks)} chunks"


@check("pipeline-overrides")
def pipeline_overrides() -> str:
    def ask(top_k: int) -> ChatCompletion:
        return client.chat.completions.create(
            model="docs-assistant", messages=QUESTIONS, temperature=0, extra_body={"retrieval": {"top_k": top_k}}
        )

    assert len(citations_of(ask(1))) == 1
    return error_of(openai.BadRequestError, lambda: ask(99)).message


@check("pipeline-turns")
def pipeline_turns() -> str:
    turns: list[ChatCompletionMessageParam] = [
        {"role": "user", "content": "What does heapq.heappush do?"},
        {"role": "assistant", "content": "[1] Push item onto heap."},
        *QUESTIONS,
    ]
    citations_of(answer := client.chat.completions.create(model="docs-assistant", messages=turns, temperature=0, max_tokens=40))
    return str(answer.choices[0].message.content)


@check("pipeline-responses")
def pipeline_responses() -> str:
    answer = client.responses.create(model="docs-assistant", input=QUESTION, temperature=0)
    assert answer.model == "docs-assistant"
    assert answer.output_text
    return f"{answer.output_text} ({len(citations_of(answer))} citations)"


@check("pipeline-responses-stream")
def pipeline_responses_stream() -> str:
    events = list(client.responses.create(model="docs-assistant", input=QUESTION, temperature=0, stream=True))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.model == "docs-assistant"
    assert last.response.output_text == text
    return f"{len(citations_of(last.response))} citations"


if __name__ == "__main__":
    check.run()
