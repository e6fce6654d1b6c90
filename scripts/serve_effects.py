"""What a running Ray Serve 2.60 does when it is sent another configuration: which applications it touches, and how.

The fields are those of ray/serve/_private: ``get_app_code_version`` and ``DeploymentVersion``. A test compares them with Ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
# Any of these makes another version of the application's code: all of its replicas are replaced.
APP_RESTARTS = ("import_path", "runtime_env", "args", "autoscaling_policy")
APP_RESTARTS_BY_DEPLOYMENT = ("request_router_config", "deployment_actors")
# These replace the replicas of one deployment.
DEPLOYMENT_RESTARTS = (
    "ray_actor_options",
    "placement_group_bundles",
    "placement_group_strategy",
    "placement_group_bundle_label_selector",
    "max_replicas_per_node",
    "gang_scheduling_config",
)
# Read when Serve starts on a cluster, and never again.
INSTANCE = ("proxy_location", "http_options", "grpc_options")


@dataclass(frozen=True, slots=True)
class ServeEffect:
    """What a configuration does to the one before it. Every application is named once."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()  # all of their replicas are replaced
    in_place: tuple[str, ...] = ()  # their replicas are told, and go on
    ignored: tuple[str, ...] = ()  # options that a Serve that runs does not take

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to send."""
        return any((self.added, self.removed, self.restarted, self.in_place, self.ignored))

    def lines(self) -> Iterator[str]:
        """Yield it in words."""
        words = {
            "started": self.added,
            "stopped": self.removed,
            "replaced, replica by replica": self.restarted,
            "changed in place, without a restart": self.in_place,
            "ignored until the next cluster": self.ignored,
        }
        yield from (f"{', '.join(names)}: {what}" for what, names in words.items() if names)


def serve_effect(old: Json, new: Json) -> ServeEffect:
    """Return what Serve does when ``new`` follows ``old``."""
    before, after = ({app["name"]: app for app in config["applications"]} for config in (old, new))
    both = [name for name in after if name in before and before[name] != after[name]]
    restarted = tuple(name for name in both if restarts(before[name], after[name]))
    has_logging = old.get("logging_config") != new.get("logging_config")  # of every application that has none of its own
    told = [name for name in after if name in before and has_logging and "logging_config" not in after[name]]
    in_place = tuple(name for name in after if name in {*both, *told} and name not in restarted)
    return ServeEffect(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        restarted=restarted,
        in_place=in_place,
        ignored=tuple(key for key in INSTANCE if old.get(key) != new.get(key)),
    )


def restarts(old: Json, new: Json) -> bool:
    """Whether replicas of an application are replaced."""
    return _code(old) != _code(new) or _made_of(old) != _made_of(new)


def _code(app: Json) -> Json:
    """Return what Serve hashes into the version of an application's code."""
    deployments = app.get("deployments", [])
    code: Json = {key: app.get(key) for key in APP_RESTARTS}
    code["policies"] = [each["autoscaling_config"].get("policy") for each in deployments if each.get("autoscaling_config")]
    return code | {key: [each[key] for each in deployments if each.get(key)] for key in APP_RESTARTS_BY_DEPLOYMENT}


def _made_of(app: Json) -> Json:
    """Return what the replicas of every deployment are made of."""
    return {each["name"]: {key: each.get(key) for key in DEPLOYMENT_RESTARTS} for each in app.get("deployments", [])}
