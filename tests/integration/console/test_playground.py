"""The playground in real Chromium, over engines that are made up."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from playwright.sync_api import Page, expect

from tests.integration.console.browser import QUESTION, Watched, ask
from tests.integration.console.engines import Stream
from tests.integration.console.platform import ConsolePlatform

pytestmark = pytest.mark.slow


def test_an_answer_streams_in_with_citations_and_timings(page: Page, platform: ConsolePlatform) -> None:
    gate = asyncio.Event()
    platform.engines.next_stream = lambda: Stream(gate=gate)
    turn = ask(page)
    answer = turn.locator(".answer")
    expect(answer.locator(".text").last).to_have_text("functools.cache keeps every")
    expect(answer).to_have_attribute("aria-busy", "true")
    platform.open_gate(gate)
    expect(answer).to_have_attribute("aria-busy", "false")
    expect(turn.locator(".question")).to_have_text(QUESTION)
    expect(answer.locator(".text").last).to_contain_text("the same call is not computed twice [2].")
    expect(answer.locator(".who")).to_have_text(re.compile("docs-assistant v1 → chat / (stable|canary)"))
    expect(turn.locator(".citations li")).to_have_count(2)
    expect(turn.locator(".citations li").first).to_have_text(
        "functools \u203a Higher-order functions \u203a functools.cache"
        "Simple lightweight unbounded function cache.library/functools.html, characters 120\u2013164, score 0.91"
    )
    figures = dict(zip(turn.locator("dt").all_inner_texts(), turn.locator("dd").all_inner_texts(), strict=True))
    assert list(figures) == ["First token", "Tokens/s", "Gap, median", "Total", "Tokens", "Prompt tokens"]
    assert (figures["Tokens"], figures["Prompt tokens"]) == ("17", "41")
    assert all(re.fullmatch(r"[\d.,]+(\sm?s)?", figure) for figure in figures.values())


def test_a_conversation_goes_on_until_a_new_one_is_begun(page: Page, platform: ConsolePlatform) -> None:
    page.goto(f"{platform.url}/console#playground")
    page.get_by_label("System prompt").fill("Be brief.")
    page.get_by_label("Temperature").fill("0.5")
    for question in ("One?", "Two?"):
        expect(ask(page, question, model="chat").locator(".answer")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".turn")).to_have_count(0)
    expect(ask(page, "Three?", model="mail").locator(".answer")).to_have_attribute("aria-busy", "false")
    asked = platform.engines.requests
    said = [[(each["role"], each["content"].split(" ")[0]) for each in body["messages"]] for body in asked]
    system, one, answer = ("system", "Be"), ("user", "One?"), ("assistant", "functools.cache")
    assert said == [[system, one], [system, one, answer, ("user", "Two?")], [system, ("user", "Three?")]]
    assert [(body["temperature"], body["max_tokens"], body["model"]) for body in asked] == [
        (0.5, 256, "chat"),
        (0.5, 256, "chat"),
        (0.5, 256, "mail"),
    ]


def test_a_new_conversation_knows_nothing_of_the_answer_that_was_still_coming(page: Page, platform: ConsolePlatform) -> None:
    gate = asyncio.Event()
    platform.engines.next_stream = lambda: Stream(gate=gate)
    expect(ask(page, "One?", model="chat").locator(".answer .text").last).to_have_text("functools.cache keeps every")
    page.get_by_role("button", name="New conversation").click()
    platform.engines.next_stream = Stream
    expect(ask(page, "Two?", model="chat").locator(".answer")).to_have_attribute("aria-busy", "false")
    assert platform.engines.requests[-1]["messages"] == [{"role": "user", "content": "Two?"}]
    expect(page.locator(".turn")).to_have_count(1)
    platform.open_gate(gate)


def test_an_answer_can_be_stopped_and_the_engine_stops_too(page: Page, platform: ConsolePlatform) -> None:
    stream = Stream(gate=asyncio.Event())
    platform.engines.next_stream = lambda: stream
    turn = ask(page, model="chat")
    expect(turn.locator(".text").last).to_have_text("functools.cache keeps every")
    page.get_by_role("button", name="Stop").click()
    expect(turn.locator(".timings")).to_contain_text(re.compile("Ended *stopped"))
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_label("Message")).to_be_focused()
    platform.engines.next_stream = Stream
    expect(ask(page, "And?", model="chat").locator(".answer")).to_have_attribute("aria-busy", "false")
    assert stream.is_closed
    assert [each["content"] for each in platform.engines.requests[-1]["messages"]][1:] == [
        "functools.cache keeps every ",
        "And?",
    ]


def test_what_a_model_writes_is_shown_and_never_run(page: Page, platform: ConsolePlatform) -> None:
    evil = '<img src=x onerror="window.isTaken=1"><script>window.isTaken=1</script> **bold**'
    platform.engines.next_stream = lambda: Stream(text=evil)
    turn = ask(page, model="chat")
    expect(turn.locator(".text").last).to_have_text(evil)
    assert page.evaluate("[window.isTaken, document.querySelectorAll('.turn img, .turn script').length]") == [None, 0]


def test_an_error_is_told_in_words_and_the_question_is_kept(watched: Watched, platform: ConsolePlatform) -> None:
    watched.is_error_expected = True
    error = {
        "error": {"message": "max_tokens must be smaller", "type": "invalid_request_error", "param": "max_tokens", "code": 400}
    }
    platform.engines.next_stream = lambda: Stream(text=json.dumps(error), status=400, content_type="application/json")
    turn = ask(watched.page, model="chat")
    expect(turn.get_by_role("alert")).to_contain_text("max_tokens must be smaller")
    expect(turn.get_by_role("alert")).to_contain_text(re.compile(r"status 400, .*parameter max_tokens, request \w+"))
    expect(watched.page.get_by_label("Message")).to_have_value(QUESTION)
