"""Settings of Ray Serve: environment variables, which every node of a cluster needs when Ray starts there, and queues."""

from __future__ import annotations

from typing import Any

SERVE_SETTINGS = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    # HAProxy restarts at every change of replicas; its old process must live as long as the longest stream.
    "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": "7200",
    "RAY_SERVE_HAPROXY_STARTUP_TIMEOUT_S": "300",
    # How long a replica that stops stays reachable before its drain begins. HAProxy hears of it within a second and
    # retries refused connections elsewhere, so the default of 30 s only makes every scaling step slower.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    # A Router that dies takes its open connections along: what it had not begun to answer is sent to another one. Of a request
    # larger than HAProxy's buffer (16 KiB) only its client can do that.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    # A handle goes by what it knows of two queues, for 10 s by default: a frozen replica then looks idle to the second try of
    # a call. Once its news is older than this, the handle asks first, and takes a replica that answers.
    "RAY_SERVE_QUEUE_LENGTH_CACHE_TIMEOUT_S": "2",
    # A policy is only as quick as its news; the default is 10 s.
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    "RAY_SERVE_HANDLE_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "1",
    # Ray lets clients set time limits, keep work running that they have left, and choose replicas, all by headers.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serve_app.rest.edge.middlewares",
    # Every deployment that is an app's first one gets a gRPC server; the default takes messages of 2 GiB.
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(64 * 2**20),
}

MOST_QUEUED = 1024  # by each caller; Serve's own default is no limit
# Calls that one replica of a stage has at a time, and that each process which calls it holds beside them; further ones are
# refused at once, which clients get as 429.
STAGE_CALLS: dict[str, Any] = {"max_ongoing_requests": 256, "max_queued_requests": MOST_QUEUED}
# What comes to a Router that has `router.max_open_requests` open, before our own code sees it.
ROUTER_QUEUE: dict[str, Any] = {
    "max_queued_requests": MOST_QUEUED,
    "backpressure_config": {"status_code": 429, "retry_after_s": 5.0},
}
