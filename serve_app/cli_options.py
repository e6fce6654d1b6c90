"""Options that commands share."""

from __future__ import annotations

from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:8000"
Url = Annotated[str, typer.Option(help="Where the platform listens.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, with every number.")]
Watch = Annotated[bool, typer.Option("--watch", help="Look again every two seconds, until Ctrl-C.")]
Interval = Annotated[float, typer.Option(metavar="S", help="Seconds between two looks.", min=0.2)]
