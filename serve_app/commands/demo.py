"""The demo of `manta run --demo`: Python's own documentation, three questions, and how to go on."""

from __future__ import annotations

import asyncio
import secrets
from datetime import timedelta
from pathlib import Path

from rich.markup import escape

from deployments.names import RETRIEVER_APP, ROLLOUTS_APP, ROUTER_APP, embedder_app
from deployments.stores.opening import open_store
from serve_app.commands import ingest
from serve_app.commands.ask import answer
from serve_app.commands.client import API_KEY, connect
from serve_app.commands.run import Running
from serve_app.config import PipelineConfig, PlatformConfig
from serve_app.config_auth import ApiKeyConfig
from serve_app.credentials import WallClock, hash_of, new_key, wall_clock
from serve_app.errors import CommandError
from serve_app.ingest.command import IngestOptions
from serve_app.ingest.python_docs import write_python_docs

ROOT_NAME = "python-docs"
KEY_LASTS = timedelta(hours=1)
QUESTIONS = (
    "What does os.getcwd do?",
    "What does random.shuffle do?",
    "What does math.isqrt do?",
)


def with_key(config: PlatformConfig, *, now: WallClock = wall_clock) -> tuple[PlatformConfig, str | None]:
    """Return the configuration with a key of the demo's own, and that key; unchanged and None where none is asked for."""
    if not config.auth.is_on:
        return config, None
    name = f"demo-run-{secrets.token_hex(4)}"  # no name that the document, or its file of keys at any time, holds
    key = new_key(name)
    record = ApiKeyConfig(name=name, hash=hash_of(key), expires_at=now() + KEY_LASTS)
    auth = config.auth.model_copy(update={"keys": (*config.auth.keys, record)})
    return config.model_copy(update={"auth": auth}), key


def run(running: Running, *, folder: Path, api_key: str | None = None) -> None:
    """Ingest while the model loads, ask, and print how to call the platform. Raises CommandError."""
    config = running.config
    if not config.pipelines:
        raise CommandError("--demo needs a pipeline in the configuration")
    pipeline = config.pipelines[0]
    version = pipeline.versions[0]
    running.wait([ROLLOUTS_APP, ROUTER_APP, embedder_app(version.embedder)])
    is_ours = holds_only_demo(config, version.collection)
    if is_ours:
        files = write_python_docs(folder)
        running.console.print(f"document set: {files} files of Python's documentation in {escape(str(folder))}")
        options = IngestOptions(folder, version.collection, prune=True, root_name=ROOT_NAME)
        report = ingest.run(options, config, embedder=version.embedder, url=running.url, api_key=api_key)
        if report.exit_code:
            raise CommandError("some files of the demo could not be ingested; see above")
    running.wait([RETRIEVER_APP, *running.apps])
    if is_ours:
        ask_all(running, pipeline, api_key=api_key)
    hints = how_to_go_on(running.url, pipeline.name, config.models[0].name, asks_for_key=config.auth.is_on)
    running.console.print(hints, highlight=False, soft_wrap=True)


def holds_only_demo(config: PlatformConfig, collection: str) -> bool:
    """Whether the collection is missing, empty, or filled by an earlier demo: nobody's own documents are mixed in."""
    store = open_store(config.vector_store)

    async def documents() -> list[str]:
        return list(await store.documents(collection)) if await store.describe(collection) else []

    return all(name.startswith(f"{ROOT_NAME}/") for name in asyncio.run(documents()))


def ask_all(running: Running, pipeline: PipelineConfig, *, api_key: str | None) -> None:
    """Stream the three answers with their citations."""
    with connect(running.url, api_key=api_key) as client:
        for question in QUESTIONS:
            running.console.print(f"\n[bold]{escape(question)}[/]")
            if not answer(client, pipeline.name, question, console=running.console):
                raise CommandError("the answer came without citations")


def how_to_go_on(url: str, pipeline: str, model: str, *, asks_for_key: bool) -> str:
    """Return the lines that tell a newcomer how to call the platform."""
    export = f"\n  export {API_KEY}=...  # a key that `manta keys create` printed\n" if asks_for_key else ""
    # Double quotes: the shell fills the variable in.
    header = f' -H "Authorization: Bearer ${API_KEY}"' if asks_for_key else ""
    imports, key = ("import os\n  ", f'os.environ\\["{API_KEY}"]') if asks_for_key else ("", '"none"')
    return f"""
[bold]{url}/v1[/] serves; Ctrl-C stops everything.
{export}
  curl -N {url}/v1/chat/completions{header} -H 'content-type: application/json' \\
    -d '{{"model": "{pipeline}", "stream": true, "messages": \\[{{"role": "user", "content": "What does os.getcwd do?"}}]}}'

  {imports}from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key={key})
  for chunk in client.chat.completions.create(
      model="{pipeline}", stream=True, messages=\\[{{"role": "user", "content": "What does os.getcwd do?"}}]
  ):
      print(chunk.choices\\[0].delta.content or "", end="", flush=True)

  .venv/bin/manta ask "What does os.getcwd do?" --url {url}
  .venv/bin/manta status --url {url}

The model without retrieval is "{model}".
"""
