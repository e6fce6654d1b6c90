from __future__ import annotations

import pytest

from serve_app.commands.ingest import choose_embedder
from serve_app.config import PlatformConfig
from serve_app.errors import CommandError

CONFIG = PlatformConfig.model_validate(
    {
        "models": [{"name": "chat", "variants": [{"name": "stable", "source": "org/model"}]}],
        "embedders": [{"name": "small", "source": "org/small"}, {"name": "large", "source": "org/large"}],
        "pipelines": [
            {
                "name": "docs",
                "versions": [
                    {"name": "v1", "embedder": "large", "collection": "docs", "prompt": "{{ question }}", "model": "chat"}
                ],
            }
        ],
    }
)


@pytest.mark.parametrize(
    ("collection", "named", "chosen"),
    [("docs", None, "large"), ("docs", "small", "small"), ("other", "large", "large")],
    ids=["bound-by-a-pipeline", "named", "named-for-a-new-collection"],
)
def test_the_embedder_is_the_one_named_or_bound(collection: str, named: str | None, chosen: str) -> None:
    assert choose_embedder(CONFIG, collection, named).name == chosen


@pytest.mark.parametrize(
    ("named", "message"),
    [(None, r"--embedder; declared: large, small"), ("tiny", r"'tiny' is not declared; declared: large, small")],
    ids=["two-to-choose-from", "not-declared"],
)
def test_no_single_embedder_is_an_error_that_lists_them(named: str | None, message: str) -> None:
    with pytest.raises(CommandError, match=message):
        choose_embedder(CONFIG, "other", named)
