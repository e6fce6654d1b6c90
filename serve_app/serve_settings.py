"""Settings of Ray Serve that are environment variables: every node of a cluster needs them when Ray starts there."""

from __future__ import annotations

SERVE_SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # HAProxy restarts at every change of replicas; its old process must live as long as the longest stream.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "300",
    # How long a replica that stops stays reachable before its drain begins. HAProxy hears of it within a second and
    # retries refused connections elsewhere, so the default of 30 s only makes every scaling step slower.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    # A policy is only as quick as its news; the default is 10 s.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # Ray lets clients set time limits, keep work running that they have left, and choose replicas, all by headers.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.rest.edge.middlewares",
    # Every deployment that is an app's first one gets a gRPC server; the default takes messages of 2 GiB.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(64 * 2**20),
}
