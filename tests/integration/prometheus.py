"""A Prometheus for tests: it scrapes one address, evaluates rules, and answers questions."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from serve_app.cluster import free_ports

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
Json = dict[str, Any]


class Prometheus:
    """Use as a context manager. Its process is ended with the block."""

    def __init__(self, program: str, folder: Path) -> None:
        """``folder`` is empty, and takes its settings and its data."""
        self._program = program
        self._folder = folder
        (port,) = free_ports(1)
        self._address = f"127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None

    def configure(self, target: str, *, labels: dict[str, str], groups: list[Json], interval_s: int = 5) -> None:
        """Say what it scrapes (``host:port``), the labels that every series gets, and the rules that it evaluates."""
        settings = {
            "global": {"scrape_interval": f"{interval_s}s", "evaluation_interval": f"{interval_s}s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "ray", "static_configs": [{"targets": [target], "labels": labels}]}],
        }
        (self._folder / "prometheus.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        (self._folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}), encoding="utf-8")

    def __enter__(self) -> Self:
        options = {
            "config.file": "prometheus.yaml",
            "storage.tsdb.path": "data",
            "web.listen-address": self._address,
            "log.level": "warn",
        }
        command = [self._program, *(f"--{name}={value}" for name, value in options.items())]
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            self._wait_ready(self._process)
        except BaseException:
            self._stop()
            raise
        return self

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not self._is_ready():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"Prometheus did not start:\n{(self._folder / 'log').read_text(encoding='utf-8')}")
            time.sleep(0.2)

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._stop()

    def query(self, expr: str, *, at_s: float | None = None) -> list[Json]:
        """Return the series of an expression, now or at a Unix time."""
        found: list[Json] = self._get("query", query=expr, **({} if at_s is None else {"time": str(at_s)}))["result"]
        return found

    def value(self, expr: str) -> float:
        """Return the value of an expression with one series. Raises ValueError where it has none or several."""
        (series,) = self.query(expr)
        return float(series["value"][1])

    def faulty_rules(self) -> dict[str, str]:
        """Return the rules that could not be evaluated, with what is wrong."""
        rules = [rule for group in self._get("rules")["groups"] for rule in group["rules"]]
        return {rule["name"]: rule.get("lastError", rule["health"]) for rule in rules if rule["health"] != "ok"}

    def _get(self, what: str, **params: str) -> Json:
        answer = httpx.post(f"http://{self._address}/api/v1/{what}", data=params, timeout=60) if params else self._plain(what)
        document: Json = answer.json()
        assert document["status"] == "success", (params, document)
        data: Json = document["data"]
        return data

    def _plain(self, what: str) -> httpx.Response:
        return httpx.get(f"http://{self._address}/api/v1/{what}", timeout=60)

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"http://{self._address}/-/ready", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
