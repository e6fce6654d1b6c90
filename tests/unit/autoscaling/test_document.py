from __future__ import annotations

import pytest
from pydantic import ValidationError

from autoscaling.document import Held, ScalingDocument


def test_what_is_not_known_is_nothing() -> None:
    assert Held(stamp=1.0).model_dump() == {"stamp": 1.0, "held": {}, "holding": {}, "draining": {}}
    assert ScalingDocument().model_dump() == {"max_accelerators": None, "apps": {}}


@pytest.mark.parametrize("text", ["", "[]", '{"stamp": 1.0, "hold": {}}', '{"held": {}}', '{"stamp": 1, "held": {"a": "b"}}'])
def test_what_another_version_has_written_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        Held.model_validate_json(text)


def test_it_survives_its_way_as_json() -> None:
    held = Held(stamp=1.5, held={"llm.chat.stable": 2}, holding={"llm.chat.stable": 3}, draining={"llm.chat.stable": 1})
    assert Held.model_validate_json(held.model_dump_json()) == held
