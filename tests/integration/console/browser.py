"""Real Chromium on the console: how it is used, and what it must not do there."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, ViewportSize, expect, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = ViewportSize(width=1280, height=900), ViewportSize(width=390, height=844)
SECTIONS = ("Overview", "Rollouts", "Playground")
QUESTION = "What does functools.cache do?"
FAILED_FETCH = "Failed to load resource"  # what Chromium says itself of an answer that is an error


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's Chromium; skips where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no Chromium on this machine: none of {', '.join(NAMES)} is on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Watched:
    """A page, and what it did that it must not do."""

    page: Page
    origin: str
    faults: list[str] = field(default_factory=list)
    is_error_expected: bool = False  # True: answers that are errors are part of the test

    def __post_init__(self) -> None:
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        is_expected = self.is_error_expected and message.text.startswith(FAILED_FETCH)
        if message.type in ("error", "warning") and not is_expected:
            self.faults.append(f"{message.type}: {message.text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self.origin}/"):
            self.faults.append(f"asked elsewhere: {request.url}")


def violations(page: Page) -> list[str]:
    """Return what axe finds wrong, as lines."""
    found = Axe().run(page).response["violations"]
    return [f"{each['impact']}: {each['id']}: {each['nodes'][0]['html'][:200]}" for each in found]


def go_to(page: Page, section: str) -> None:
    page.get_by_role("link", name=section).click()
    expect(page.get_by_role("heading", name=section, level=2)).to_be_visible()


def ask(page: Page, question: str = QUESTION, *, model: str = "docs-assistant") -> Locator:
    """Send a message, and return the turn that it begins."""
    go_to(page, "Playground")
    page.get_by_label("Model", exact=True).select_option(model)
    page.get_by_label("Message").fill(question)
    page.get_by_role("button", name="Send").click()
    return page.locator(".turn").last


def row(page: Page, table: str, *names: str) -> Locator:
    """Return the row of a table that begins with these cells."""
    rows = page.get_by_role("table", name=table, exact=True).get_by_role("row")
    return rows.filter(has_text=re.compile("^" + "".join(map(re.escape, names))))
