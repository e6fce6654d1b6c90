"""A model with an adapter in two versions, and a gateway that serves it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from serve_app.call import Call
from serve_app.gateway import Gateway
from serve_app.rollout.document import RoutedAdapter, RoutedAdapterVersion, RoutedModel, RoutingDocument, declared_split, parts
from serve_app.rollout.table import Share, TrafficTable
from tests.unit.serve_app.fakes import Answer, call, document, entry, gateway, model, snapshot

LEGAL = "chat:legal"


def adapter(**weights: int) -> RoutedAdapter:
    """Return the adapter with these versions, the first the baseline."""
    versions = [
        RoutedAdapterVersion(name=name, source=f"/adapters/{name}", weight=weight, revision=f"rev-{name}")
        for name, weight in (weights or {"v1": 100}).items()
    ]
    return RoutedAdapter(name=LEGAL, versions=tuple(versions))


def adapted(base: RoutedModel, *, to: RoutedAdapter | None = None, **changes: Any) -> RoutedModel:
    """Return a model with the adapter."""
    return base.model_copy(update={"adapters": (to or adapter(),), **changes})


def routing(to: RoutedAdapter | None = None, *variants: tuple[str, int], **changes: Any) -> RoutingDocument:
    """Return a document of the model, with one variant unless others are named."""
    return document(models=(adapted(model(*(variants or (("stable", 100),))), to=to, **changes),))


def served(*answers: Answer, routing: RoutingDocument, canary: bool = False, loaded: tuple[str, ...] = ()) -> Gateway:
    """Return a gateway with one replica of each variant; ``loaded``: the adapters in all of them."""
    it = gateway(*answers)
    entries = [entry("r1", adapters=loaded)] + ([entry("c1", "canary", adapters=loaded)] if canary else [])
    it.update(snapshot(*entries, routing=routing))
    return it


def asks(it: Gateway, *, version: str = "v1", variant: str = "stable", is_stream: bool = False) -> Call:
    """Return a call of the adapter, of a conversation that a version and a variant own."""
    base, found = it.view.adapters[LEGAL]
    assert found is not None
    sessions = (f"s{i}" for i in range(5000))
    session = next(
        s
        for s in sessions
        if it.view.adapter_version(found, call(s).affinity) == version and it.view.variant(base, call(s).affinity) == variant
    )
    body = {"model": LEGAL, "stream": is_stream}
    return replace(call(session), body=body, raw=json.dumps(body).encode())


def withdrawn(it: Gateway, name: str, variant: str) -> None:
    """Take a variant, or version, out, as Rollouts would tell it."""
    splits = []
    for part in parts(it.view.document):
        split = declared_split(part)
        if part.name == name:
            left = next(share.variant for share in split.shares if share.variant != variant)
            shares = (Share(variant=left, weight=100), Share(variant=variant, weight=0, is_withdrawn=True))
            split = split.model_copy(update={"shares": shares, "baseline": left})
        splits.append(type(split)(name=split.name, shares=split.shares, baseline=split.baseline))
    table = TrafficTable(version=2, splits=tuple(splits))
    it.update(replace(snapshot(*it.pool.entries(), routing=it.view.document, version=2), traffic=table.model_dump_json()))
