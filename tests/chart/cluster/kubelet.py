"""Runs pods of `helm test`: their scripts, with their environment, as processes of this machine, against the real platform."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from tests.chart.cluster.api_server import ApiServer
from tests.chart.cluster.kinds import KINDS, Kind
from tests.chart.cluster.store import Key

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
LOOP_S = 0.3
POD, CONFIG_MAP, SECRET = (next(kind for kind in KINDS if kind.name == name) for name in ("Pod", "ConfigMap", "Secret"))
KEPT = ("PATH", "LANG", "LD_LIBRARY_PATH")


class Kubelet:
    """Starts every test pod that has no status yet. Use as a context manager."""

    def __init__(self, api: ApiServer) -> None:
        self._api = api
        self._stop = threading.Event()
        self._seen: set[str] = set()
        self.codes: dict[str, int] = {}  # exit codes by pod

    def __enter__(self) -> Kubelet:
        threading.Thread(target=self._loop, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _loop(self) -> None:
        while not self._stop.wait(LOOP_S):
            for pod in self._api.store.objects(POD, labels={"app.kubernetes.io/component": "test"}):
                if pod["metadata"]["uid"] not in self._seen:
                    self._seen.add(pod["metadata"]["uid"])
                    threading.Thread(target=self._run, args=(pod,), daemon=True).start()

    def _run(self, pod: Json) -> None:
        metadata, container = pod["metadata"], pod["spec"]["containers"][0]
        key = Key(POD, metadata["namespace"], metadata["name"])
        self._api.store.put_status(key, {"phase": "Running"})
        with tempfile.TemporaryDirectory(prefix="upg_pod_") as folder:
            mounts = self._mounted(pod, Path(folder))
            command = [sys.executable, *(replaced(word, mounts) for word in container["command"][1:])]
            env = {name: os.environ[name] for name in KEPT if name in os.environ} | self._env(container, metadata["namespace"])
            done = subprocess.run(
                command,
                env={**env, "PYTHONPATH": str(ROOT)},
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        self._api.logs[key] = done.stdout + done.stderr
        self.codes[key.name] = done.returncode
        self._api.store.put_status(key, {"phase": "Succeeded" if done.returncode == 0 else "Failed"})

    def _mounted(self, pod: Json, folder: Path) -> dict[str, str]:
        """Write the pod's ConfigMaps, and return where each of its mounts is here."""
        maps = {each["name"]: each["configMap"]["name"] for each in pod["spec"]["volumes"] if "configMap" in each}
        mounts = {
            each["mountPath"]: each["name"] for each in pod["spec"]["containers"][0]["volumeMounts"] if each["name"] in maps
        }
        for name in mounts.values():
            found = self._api.store.get(Key(CONFIG_MAP, pod["metadata"]["namespace"], maps[name]))
            (folder / name).mkdir()
            for file, text in (found or {})["data"].items():
                (folder / name / file).write_text(text, encoding="utf-8")
        return {path: str(folder / name) for path, name in mounts.items()}

    def _env(self, container: Json, namespace: str) -> dict[str, str]:
        """Return the container's environment; the API's Service is at this machine."""
        found = {}
        for each in container["env"]:
            reference = each.get("valueFrom", {}).get("secretKeyRef")
            found[each["name"]] = each["value"] if reference is None else self._secret(reference, namespace, SECRET)
        services = {
            part for value in found.values() for part in value.replace("/", ":").split(":") if part.endswith("-serve-svc")
        }
        return {name: replaced(value, dict.fromkeys(services, "127.0.0.1")) for name, value in found.items()}

    def _secret(self, reference: Json, namespace: str, kind: Kind) -> str:
        found = self._api.store.get(Key(kind, namespace, reference["name"]))
        value: str = (found or {})["stringData"][reference["key"]]
        return value


def replaced(text: str, words: dict[str, str]) -> str:
    """Return a text with these words replaced."""
    for old, new in words.items():
        text = text.replace(old, new)
    return text
