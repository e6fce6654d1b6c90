"""A platform in this process, and Chromium on its console."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.console.browser import DESKTOP, Watched, chromium
from tests.integration.console.engines import Stream
from tests.integration.console.platform import ConsolePlatform, running
from tests.unit.serve_app.test_view import ANN, BOB


# Per module, since Playwright keeps an event loop running in this thread: tests that are coroutines could not run beside it.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made


@pytest.fixture(scope="module")
def shared() -> Iterator[ConsolePlatform]:
    with running(ConsolePlatform()) as made:
        yield made


@pytest.fixture
def platform(shared: ConsolePlatform) -> Iterator[ConsolePlatform]:
    shared.engines.requests.clear()
    yield shared
    shared.engines.next_stream = Stream
    shared.is_away = False


@pytest.fixture(scope="module")
def locked() -> Iterator[ConsolePlatform]:
    with running(ConsolePlatform(ANN, BOB)) as made:
        yield made


@pytest.fixture
def watch(browser: Browser) -> Iterator[Callable[[ConsolePlatform], Watched]]:
    """Opens the console of a platform; in the end, no page may have done what it must not."""
    opened: list[Watched] = []

    def watch(platform: ConsolePlatform) -> Watched:
        page = browser.new_page(viewport=DESKTOP)
        page.set_default_timeout(15_000)
        opened.append(Watched(page, platform.url.rpartition("/team")[0]))
        page.goto(f"{platform.url}/console")
        return opened[-1]

    yield watch
    faults = [fault for watched in opened for fault in watched.faults]
    for watched in opened:
        watched.page.close()
    assert faults == []


@pytest.fixture
def watched(watch: Callable[[ConsolePlatform], Watched], platform: ConsolePlatform) -> Watched:
    made = watch(platform)
    expect(made.page.locator("#state")).to_have_text("Live")
    return made


@pytest.fixture
def page(watched: Watched) -> Page:
    return watched.page
