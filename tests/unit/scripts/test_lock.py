from __future__ import annotations

from scripts import lock


def test_a_lock_has_public_versions_only() -> None:
    freeze = """\
torch==2.13.0+cpu
Jinja2==3.1.6
-e git+https://example.com/manta.git@abc#egg=manta_serve
manta-serve @ file:///somewhere
torchvision==9.9.9
aiohttp==3.14.5
"""
    assert lock.constraints(freeze) == ["aiohttp==3.14.5", "Jinja2==3.1.6", "torch==2.13.0", *lock.ADDED]
