"""The console of a platform that asks for keys."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.integration.console.browser import Watched, ask, go_to, row, violations
from tests.integration.console.platform import ConsolePlatform
from tests.unit.serve_app.test_view import ANN_KEY, BOB_KEY

pytestmark = pytest.mark.slow


def use_key(page: Page, key: str) -> None:
    page.get_by_label("Key", exact=True).fill(key)
    page.get_by_role("button", name="Use this key").click()


def test_where_there_are_keys_one_is_asked_for(watch: Callable[[ConsolePlatform], Watched], locked: ConsolePlatform) -> None:
    watched = watch(locked)
    page = watched.page
    expect(page.locator("#state")).to_have_text("Needs a key")
    expect(page.get_by_text("This platform asks for a key.")).to_be_visible()
    assert violations(page) == []
    watched.is_error_expected = True
    use_key(page, "manta_ann_wrong")
    expect(page.get_by_text("Type a key that is in force.")).to_be_visible()
    use_key(page, ANN_KEY)
    expect(page.get_by_text("No figures for this key")).to_be_visible()
    expect(page.locator("#state")).to_have_text("No figures")
    expect(ask(page, model="chat").locator(".answer")).to_have_attribute("aria-busy", "false")
    assert page.get_by_label("Model", exact=True).locator("option").all_inner_texts() == ["chat"]
    page.get_by_role("button", name="Change key").click()
    use_key(page, BOB_KEY)
    expect(page.locator("#state")).to_have_text("Live")
    expect(row_of_overview(page)).to_be_visible()
    page.get_by_role("button", name="Change key").click()
    page.get_by_role("button", name="Forget the key").click()
    expect(page.locator("#state")).to_have_text("Needs a key")
    expect(row_of_overview(page)).to_be_hidden()


def test_what_no_key_can_be_is_refused_on_the_page(
    watch: Callable[[ConsolePlatform], Watched], locked: ConsolePlatform
) -> None:
    page = watch(locked).page
    use_key(page, "schl\u00fcssel \u2603")
    expect(page.get_by_text("A key has no spaces and only plain letters, digits and signs.")).to_be_visible()
    expect(page.locator("#state")).to_have_text("Needs a key")
    use_key(page, BOB_KEY)
    expect(page.locator("#state")).to_have_text("Live")


def test_another_key_does_not_see_what_was_said_with_the_last_one(
    watch: Callable[[ConsolePlatform], Watched], locked: ConsolePlatform
) -> None:
    watched = watch(locked)
    watched.is_error_expected = True  # Ann may see no figures
    page = watched.page
    use_key(page, BOB_KEY)
    expect(ask(page, "A secret?", model="chat").locator(".answer")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Change key").click()
    use_key(page, ANN_KEY)
    expect(page.locator(".turn")).to_have_count(0)
    expect(ask(page, "Two?", model="chat").locator(".answer")).to_have_attribute("aria-busy", "false")
    assert [each["content"] for each in locked.engines.requests[-1]["messages"]] == ["Two?"]


def row_of_overview(page: Page) -> Locator:
    go_to(page, "Overview")
    return row(page, "Variants", "chat", "stable")


def test_a_key_is_kept_in_the_tab_and_nowhere_else(
    watch: Callable[[ConsolePlatform], Watched], locked: ConsolePlatform
) -> None:
    page = watch(locked).page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    use_key(page, BOB_KEY)
    expect(page.locator("#state")).to_have_text("Live")
    assert page.evaluate("[Object.values(sessionStorage), localStorage.length, document.cookie]") == [[BOB_KEY], 0, ""]
    assert [url for url in asked if BOB_KEY in url] == []
    page.reload()
    expect(page.locator("#state")).to_have_text("Live")
