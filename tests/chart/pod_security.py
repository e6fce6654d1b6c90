"""Kubernetes' Pod Security Standard `restricted`, as far as pods of the chart can break it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}


def violations(spec: Json) -> list[str]:
    """Return what of a pod's specification is not restricted."""
    return [*_pod(spec), *(each for container in spec["containers"] for each in _container(container, spec))]


def _pod(spec: Json) -> Iterator[str]:
    for key in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(key):
            yield key
    for volume in spec.get("volumes", []):
        if not volume.keys() & VOLUMES:
            yield f"volume {volume}"


def _container(container: Json, spec: Json) -> Iterator[str]:
    own, pod = container.get("securityContext", {}), spec.get("securityContext", {})
    name = container["name"]
    if own.get("privileged") or own.get("allowPrivilegeEscalation") is not False:
        yield f"{name}: may gain privileges"
    if own.get("capabilities", {}).get("drop") != ["ALL"] or own["capabilities"].get("add"):
        yield f"{name}: capabilities"
    if not own.get("runAsNonRoot", pod.get("runAsNonRoot")) or own.get("runAsUser", pod.get("runAsUser")) == 0:
        yield f"{name}: may run as root"
    if own.get("seccompProfile", pod.get("seccompProfile", {})).get("type") not in ("RuntimeDefault", "Localhost"):
        yield f"{name}: seccomp"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name}: hostPort"
