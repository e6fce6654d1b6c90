"""The kinds of objects that the loopback API knows, as Kubernetes' discovery and OpenAPI documents describe them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind, and where its objects are."""

    group: str
    version: str
    name: str
    plural: str
    is_namespaced: bool = True

    @property
    def api(self) -> str:
        """Its apiVersion."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The path of its group and version."""
        return f"/apis/{self.api}" if self.group else f"/api/{self.api}"

    @property
    def path(self) -> str:
        """The path of one of its objects, as OpenAPI writes it."""
        namespace = "/namespaces/{namespace}" if self.is_namespaced else ""
        return f"{self.root}{namespace}/{self.plural}/{{name}}"


KINDS = (
    Kind("", "v1", "Namespace", "namespaces", is_namespaced=False),
    Kind("", "v1", "ConfigMap", "configmaps"),
    Kind("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims"),
    Kind("", "v1", "Pod", "pods"),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "Service", "services"),
    Kind("", "v1", "ServiceAccount", "serviceaccounts"),
    Kind("apps", "v1", "StatefulSet", "statefulsets"),
    Kind("networking.k8s.io", "v1", "Ingress", "ingresses"),
    Kind("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
    Kind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Kind("rbac.authorization.k8s.io", "v1", "Role", "roles"),
    Kind("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings"),
    Kind("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes"),
    Kind("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes"),
    Kind("monitoring.coreos.com", "v1", "PodMonitor", "podmonitors"),
    Kind("monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules"),
    Kind("ray.io", "v1", "RayService", "rayservices"),
)
ROOTS = {kind.root: kind for kind in KINDS}


def discovery(path: str) -> Json | None:
    """Return the document at a path of the discovery, or None."""
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
    if path == "/api":
        return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"]}
    if path == "/apis":
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [*_groups()]}
    if path == "/openapi/v3":
        return {"paths": {root.lstrip("/"): {"serverRelativeURL": f"/openapi/v3{root}"} for root in ROOTS}}
    if path.startswith("/openapi/v3/") and (root := path.removeprefix("/openapi/v3")) in ROOTS:
        return _openapi(root)
    return _resources(path) if path in ROOTS else None


def _groups() -> Iterator[Json]:
    for kind in ROOTS.values():
        if kind.group:
            version = {"groupVersion": kind.api, "version": kind.version}
            yield {"name": kind.group, "versions": [version], "preferredVersion": version}


def _resources(root: str) -> Json:
    verbs = ["create", "delete", "get", "list", "patch", "update", "watch"]
    found = [
        {"name": kind.plural, "singularName": "", "namespaced": kind.is_namespaced, "kind": kind.name, "verbs": verbs}
        for kind in KINDS
        if kind.root == root
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": ROOTS[root].api, "resources": found}


def _openapi(root: str) -> Json:
    """Return the OpenAPI document of a group: Helm reads in it whether a kind's PATCH takes `fieldValidation`."""
    paths = {}
    for kind in (each for each in KINDS if each.root == root):
        operation = {
            "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
            "responses": {"200": {"description": "OK"}},
            "x-kubernetes-action": "patch",
            "x-kubernetes-group-version-kind": {"group": kind.group, "version": kind.version, "kind": kind.name},
        }
        paths[kind.path] = {"patch": operation}
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.36.0"}, "paths": paths}
