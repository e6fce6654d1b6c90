"""The console in real Chromium, over a platform in this process, behind a path prefix."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Locator, Page, ViewportSize, expect

from serve_app.commands.variant_rows import VariantRow, look, ready_of, variant_rows
from tests.integration.console.browser import DESKTOP, PHONE, QUESTION, SECTIONS, Watched, ask, go_to, row, violations
from tests.integration.console.platform import ConsolePlatform

pytestmark = pytest.mark.slow


def test_a_weight_that_changes_is_shown_without_a_reload(page: Page, platform: ConsolePlatform) -> None:
    page.evaluate("window.isSamePage = true")
    weight = row(page, "Variants", "mail", "stable").get_by_role("cell").nth(1)
    expect(weight).to_have_text("80 %")
    platform.declare(stable=35, next=65)
    expect(weight).to_have_text("35 %")
    go_to(page, "Rollouts")
    expect(row(page, "Weights of mail", "next").get_by_role("cell").first).to_have_text("65 %")
    platform.declare()
    expect(row(page, "Weights of mail", "next").get_by_role("cell").first).to_have_text("20 %")
    assert page.evaluate("window.isSamePage") is True


def test_a_rollout_is_commanded_once_its_operator_is_sure(page: Page) -> None:
    go_to(page, "Rollouts")
    card = page.get_by_role("article", name="Rollout of chat")
    expect(card.get_by_role("row").filter(has_text="error rate")).to_contain_text("of 100000 requests")
    expect(card.locator("[aria-current=step]")).to_have_text("5 %")
    pause, resume = (card.get_by_role("button", name=f"{verb} the rollout of chat") for verb in ("Pause", "Resume"))
    pause.click()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(card.locator(".badge")).to_have_text("running")
    pause.click()
    expect(page.get_by_role("dialog")).to_contain_text("chat stays at the step that it has reached.")
    page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    expect(card.locator(".badge")).to_have_text("paused")
    expect(pause).to_be_hidden()
    card.get_by_text("Decisions").click()
    expect(card.locator(".decisions li").first).to_contain_text("paused; stable 95 %, canary 5 %; by anonymous")
    resume.click()
    page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    expect(card.locator(".badge")).to_have_text("running")
    expect(card.locator(".decisions li").first).to_contain_text("resumed")


def test_a_command_that_is_refused_says_why(watched: Watched, platform: ConsolePlatform) -> None:
    watched.is_error_expected = True
    page = watched.page
    go_to(page, "Rollouts")
    card = page.get_by_role("article", name="Rollout of mail")
    page.route("**/abort", lambda route: route.fulfill(status=409, json={"error": {"message": "it goes there already"}}))
    card.get_by_role("button", name="Abort").click()
    page.get_by_role("dialog").get_by_role("button", name="Abort").click()
    expect(card.get_by_role("alert")).to_have_text("it goes there already")


def test_figures_that_cannot_be_had_are_called_stale_until_they_can(watched: Watched, platform: ConsolePlatform) -> None:
    watched.is_error_expected = True
    state = watched.page.locator("#state")
    platform.is_away = True
    expect(state).to_have_text(re.compile(r"Stale: figures of \d\d:\d\d:\d\d"))
    expect(row(watched.page, "Variants", "mail", "stable")).to_be_visible()
    assert violations(watched.page) == []
    platform.is_away = False
    expect(state).to_have_text("Live")


def test_a_platform_that_never_answered_is_told_so_in_words(watched: Watched) -> None:
    watched.is_error_expected = True
    page = watched.page
    page.route("**/v1/models", lambda route: route.abort())
    page.reload()
    expect(page.locator("#state")).to_have_text("No figures: the platform does not answer")
    page.unroute("**/v1/models")
    expect(page.locator("#state")).to_have_text("Live")


def test_what_one_part_cannot_tell_keeps_nothing_else_from_being_shown(watched: Watched) -> None:
    watched.is_error_expected = True
    page = watched.page
    page.route("**/admin/rollouts", lambda route: route.fulfill(status=503, json={"error": {"message": "Rollouts is away"}}))
    expect(page.get_by_text("rollouts cannot be read: Rollouts is away.")).to_be_visible()
    expect(page.locator("#state")).to_have_text("Live")
    page.unroute("**/admin/rollouts")
    expect(page.get_by_text("rollouts cannot be read")).to_have_count(0)


def test_nobody_is_asked_while_nobody_looks(watch: Callable[[ConsolePlatform], Watched], platform: ConsolePlatform) -> None:
    page = watch(platform).page
    expect(page.locator("#state")).to_have_text("Live")
    page.clock.install()
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#state")).to_have_text("Paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert asked == []
    page.evaluate("Object.defineProperty(document, 'hidden', {value: false, configurable: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    expect(page.locator("#state")).to_have_text("Live")
    assert asked


def test_the_console_and_the_terminal_show_the_same_figures(page: Page, platform: ConsolePlatform) -> None:
    with httpx.Client(base_url=platform.url) as client:
        rows = variant_rows(look(client))
    shown = {name: steady(row(page, "Variants", *name)) for name in [(each.model, each.variant) for each in rows]}
    assert shown == {(each.model, each.variant): told(each) for each in rows}


def steady(shown: Locator) -> list[str]:
    """Return the cells of a row whose figures do not move while the test looks."""
    cells = [cell.strip().replace("\u00a0", " ") for cell in shown.locator("th, td").all_inner_texts()]
    return [cells[index] for index in (2, 3, 5, 6, 11, 12)]


def told(row: VariantRow) -> list[str]:
    """Return what the terminal has in these cells, with the console's units."""
    weight = f"{row.weight} %" if row.weight == row.declared_weight else f"{row.weight} % (declared {row.declared_weight})"
    cache = f"{100 * row.kv_cache_ratio:.0f} %"
    return [weight, ready_of(row).replace("/", " / "), str(row.queue), str(row.running), cache, row.engine]


def test_charts_are_told_in_words_and_as_a_table(page: Page) -> None:
    chart = page.get_by_role("img", name=re.compile("Ready replicas of chat in the last 15 minutes"))
    expect(chart).to_have_attribute(
        "aria-label", re.compile(r"stable: now 2, lowest 1, highest 2; canary: now 1, lowest 1, highest 1")
    )
    assert chart.locator("path").count() == 2
    page.get_by_text("The same as a table").first.click()
    table = page.get_by_role("table", name="Figures of chat by the minute")
    expect(table.get_by_role("row").nth(1)).to_have_text(re.compile(r"^\d\d:\d\d:\d\dstable\d+\d+29\d %$"))


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    for name in SECTIONS:
        page.keyboard.press("Tab")
        link = page.get_by_role("link", name=name)
        expect(link).to_be_focused()
        assert link.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Playground")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_label("Model", exact=True)).to_be_focused()
    page.keyboard.type("docs")
    while not page.get_by_label("Message").evaluate("element => element === document.activeElement"):
        page.keyboard.press("Tab")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator(".citations li")).to_have_count(2)
    expect(page.get_by_label("Message")).to_be_focused()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_section_is_accessible_and_fits(page: Page, viewport: ViewportSize, scheme: str, tmp_path: Path) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    page.set_viewport_size(viewport)
    expect(ask(page).locator(".answer")).to_have_attribute("aria-busy", "false")
    for section in SECTIONS:
        go_to(page, section)
        for summary in page.locator("summary:visible").all():
            summary.click()
        page.evaluate("scrollTo(0, 0)")
        page.screenshot(path=tmp_path / f"{section.lower()}.png", full_page=True)
        assert violations(page) == [], section
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], section
    go_to(page, "Rollouts")
    page.get_by_role("button", name="Abort").first.click()
    page.screenshot(path=tmp_path / "dialog.png")
    assert violations(page) == [], "dialog"
