"""Declared: what Rollouts is told, made from the platform's document as the operator wrote it.

The document travels as it is, so that whoever can render YAML (the Helm chart, for one) can write it: what Routers and
policies need is derived here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import ValidationError

from autoscaling.document import ScalingDocument
from deployments.scaling_document import scaling_document
from serve_app.config import PlatformConfig
from serve_app.config_error import ConfigError, problems_of
from serve_app.rollout.document import RoutingDocument, routing_document
from serve_app.view import RoutingView
from serve_app.yaml_document import YamlDocument

KEY = "platform"  # of the user_config


@dataclass(frozen=True, slots=True)
class Declared:
    """One configuration, as its readers need it."""

    routing: RoutingDocument
    scaling: ScalingDocument


def declared(user_config: Mapping[str, object]) -> Declared:
    """Return what a user_config declares.

    Raises:
        ValueError: it cannot be put in force; the message names the fields.
    """
    if KEY not in user_config:
        raise ValueError(f"the user_config has no `{KEY}`, which holds the platform's document")
    try:
        config = PlatformConfig.model_validate(user_config[KEY])
    except ValidationError as err:
        # In the words of `manta validate`. Pydantic's own text would repeat values, and some are the hashes of keys.
        problems = (replace(problem, line=0) for problem in problems_of(err, YamlDocument()))
        raise ConfigError(KEY, problems) from err
    routing = routing_document(config)
    RoutingView(routing)  # what Routers will make of it: a prompt may be wrong still
    return Declared(routing, scaling_document(config))
