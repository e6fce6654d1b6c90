from __future__ import annotations

from serve_app.config import PlatformConfig
from serve_app.replica_set import BALANCE
from serve_app.rollout.document import RoutingDocument, routing_document

CONFIG = PlatformConfig.model_validate(
    {
        "models": [
            {
                "name": "chat",
                "variants": [
                    {"name": "stable", "source": "org/a", "weight": 90, "engine": {"kind": "simulated", "max_model_len": 4096}},
                    {"name": "canary", "source": "org/b", "weight": 10, "max_leases": 7, "autoscaling": {"min_replicas": 0}},
                ],
            }
        ],
        "embedders": [{"name": "minilm", "source": "org/minilm"}],
    }
)


def test_routers_learn_names_weights_and_limits_and_nothing_else_of_a_variant() -> None:
    [model] = routing_document(CONFIG).models
    assert model.weights == (("stable", 90), ("canary", 10))
    assert [(v.max_leases, v.engine) for v in model.variants] == [(256, "simulated"), (7, "vllm")]
    assert [(v.may_sleep, v.max_model_len) for v in model.variants] == [(False, 4096), (True, None)]
    assert routing_document(CONFIG).embedders == ("minilm",)


def test_a_document_survives_its_way_as_json() -> None:
    made = routing_document(CONFIG)
    assert RoutingDocument.model_validate_json(made.model_dump_json()) == made


def test_routers_learn_how_to_choose_a_replica() -> None:
    router = CONFIG.router.model_copy(update={"replica_choice": "random", "balance_factor": 2.0})
    made = routing_document(CONFIG.model_copy(update={"router": router}))
    assert (made.replica_choice, made.balance_factor) == ("random", 2.0)
    unset = RoutingDocument()
    assert (
        (unset.replica_choice, unset.balance_factor) == (CONFIG.router.replica_choice, CONFIG.router.balance_factor) == BALANCE
    )


def test_routers_learn_how_to_keep_clients_waiting_and_whose_pages_may_call() -> None:
    router = CONFIG.router.model_copy(update={"keep_alive_s": 3.0, "cors_origins": ("*",)})
    made = routing_document(CONFIG.model_copy(update={"router": router}))
    assert (made.keep_alive_s, made.cors_origins) == (3.0, ("*",))
    assert RoutingDocument().keep_alive_s == CONFIG.router.keep_alive_s
