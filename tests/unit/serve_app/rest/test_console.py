"""The console's page and its parts: open, strict, complete, and in step with the code beside them."""

from __future__ import annotations

import json
import re

import httpx
import pytest

from serve_app.config import AuthConfig
from serve_app.rest.console import POLICY, TYPES, console_page, console_parts
from serve_app.rollout.commands import _FITS, Verb
from serve_app.rollout.plan import ACTIVE
from serve_app.timeline import Figures
from tests.unit.serve_app.rest.front import error_of, ready, request
from tests.unit.serve_app.test_view import ANN

KEYS = AuthConfig(keys=(ANN,))
PAGE = console_page().decode()
SCRIPTS = {name: part.decode() for name, part in console_parts().items() if name.endswith(".js")}
STYLES = "".join(part.decode() for name, part in console_parts().items() if name.endswith(".css"))


@pytest.mark.parametrize("path", ["/console", *(f"/console/{name}" for name in console_parts())])
async def test_everything_is_open_and_kept_to_this_platform(path: str) -> None:
    response = await request(ready(auth=KEYS), "GET", path)
    expected = "text/html" if path == "/console" else TYPES[path.rpartition(".")[2]]
    assert (response.status_code, response.headers["content-type"]) == (200, f"{expected}; charset=utf-8")
    named = ("content-security-policy", "x-content-type-options", "referrer-policy", "cache-control")
    assert [response.headers[name] for name in named] == [POLICY, "nosniff", "no-referrer", "no-store"]


async def test_a_slash_at_the_end_leads_to_the_page_behind_any_prefix() -> None:
    response = await request(ready(auth=KEYS), "GET", "/console/")
    assert (response.status_code, response.headers["location"]) == (308, "../console")
    assert httpx.URL("http://gateway/some/prefix/console/").join(response.headers["location"]).path == "/some/prefix/console"


def test_the_policy_allows_nothing_inline_and_no_other_host() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(" ".join(rules.values()).split()) == {"'none'", "'self'", "data:"}


@pytest.mark.parametrize(("auth", "keys"), [(AuthConfig(), "off"), (KEYS, "on")], ids=["no-keys", "keys"])
async def test_the_page_knows_whether_to_ask_for_a_key_and_nothing_else(auth: AuthConfig, keys: str) -> None:
    text = (await request(ready(auth=auth), "GET", "/console")).text
    assert text == PAGE.replace('data-keys="off"', f'data-keys="{keys}"')
    assert f'data-keys="{keys}"' in text


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2fconsole.css", "%2e%2e%2fcore.py", "console.js%00"])
async def test_nothing_but_the_parts_is_served(name: str) -> None:
    assert error_of(await request(ready(), "GET", f"/console/{name}"))[:2] == (404, "unknown_url")


def test_the_page_has_no_inline_script_or_style_and_names_no_other_host() -> None:
    assert not re.search(r"<style|<script(?![^>]*\bsrc=)|\bon\w+=|style=|javascript:|https?://|//\w", PAGE)


def test_the_page_has_relative_addresses_only_so_that_a_path_prefix_does_no_harm() -> None:
    asked = re.findall(r'(?:href|src)="([^"#][^"]*)"', PAGE)
    assert sorted(asked) == ["console/console.css", "console/console.js", "console/icon.svg", "console/panels.css"]
    paths = [path for script in SCRIPTS.values() for path in re.findall(r'["`](/?(?:v1|admin)/[^"`]*)["`]', script)]
    assert paths
    assert [path for path in paths if path.startswith("/")] == []


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_a_script_reads_no_text_as_html_and_imports_only_what_is_there(name: str) -> None:
    script = SCRIPTS[name]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|https?://(?!www\.w3\.org)", script
    )
    assert set(re.findall(r'from "\./([^"]+)"', script)) <= SCRIPTS.keys()
    assert len(script.splitlines()) <= 300


def test_styles_load_nothing() -> None:
    assert not re.search(r"url\(|@import", STYLES)


def test_every_element_that_a_script_looks_for_is_on_the_page() -> None:
    asked = {name for script in SCRIPTS.values() for name in re.findall(r'byId\("([^"]+)"\)', script)}
    assert asked - set(re.findall(r'\bid="([^"]+)"', PAGE)) == set()


def test_buttons_are_there_in_the_phases_in_which_their_command_works() -> None:
    rows = re.findall(r'{ verb: "([^"]+)", label: "[^"]+", phases: ([^}]+?) }', SCRIPTS["commands.js"])
    phases = {verb: json.loads(listed) for verb, listed in rows}
    assert set(phases) == {verb.value for verb in Verb}
    assert {verb: set(listed) for verb, listed in phases.items() if listed} == {
        verb.value: {phase.value for phase in fits} for verb, fits in _FITS.items()
    }
    [active] = re.findall(r"ACTIVE = (\[[^\]]+\])", SCRIPTS["commands.js"])
    assert set(json.loads(active)) == {phase.value for phase in ACTIVE}


def test_charts_draw_the_figures_that_the_timeline_has() -> None:
    assert set(re.findall(r'{ name: "(\w+)", title', SCRIPTS["timeline.js"])) == set(Figures._fields)
