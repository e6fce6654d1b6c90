"""The entry for Locust: `locust -f loadtests/locustfile.py`, with the scenario's file in MANTA_LOADTEST_SCENARIO.

`manta loadtest` runs this headless; started by hand, Locust's web page runs the same scenario.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from locust import events
from locust.runners import MasterRunner, WorkerRunner

from loadtests.scenario_file import OUT, SCENARIO, URL, load_scenario
from loadtests.users.conductor import MasterSide, WorkerSide
from loadtests.users.locust_shape import load_shape
from loadtests.users.locust_users import user_classes

API_KEY = "MANTA_API_KEY"

_found = load_scenario(os.environ.get(SCENARIO, "smoke"), url=os.environ.get(URL))
_out = os.environ.get(OUT)
LoadShape, _masters = load_shape(_found.scenario)
globals().update(user_classes(_found.scenario, _found.folder))  # Locust looks for classes in this module


@events.init.add_listener  # type: ignore[untyped-decorator]  # Locust has no types
def wire(environment: Any, runner: Any, **_: Any) -> None:
    """Connect this process' side, or both where there is only one."""
    api_key = os.environ.get(API_KEY)
    environment.host = environment.host or _found.scenario.target.url
    if not isinstance(runner, MasterRunner):
        WorkerSide(environment, _found.scenario, api_key)
    if not isinstance(runner, WorkerRunner):
        _masters.append(MasterSide(environment, _found.scenario, api_key=api_key, out=Path(_out) if _out else None))
