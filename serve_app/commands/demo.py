"""The demo of `manta run --demo`: Python's own documentation, three questions, and how to go on."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.markup import escape

from deployments.names import RETRIEVER_APP, ROLLOUTS_APP, ROUTER_APP, embedder_app
from deployments.stores.opening import open_store
from serve_app.commands import ingest
from serve_app.commands.ask import answer
from serve_app.commands.client import connect
from serve_app.commands.run import Running
from serve_app.config import PipelineConfig, PlatformConfig
from serve_app.errors import CommandError
from serve_app.ingest.command import IngestOptions
from serve_app.ingest.python_docs import write_python_docs

ROOT_NAME = "python-docs"
QUESTIONS = (
    "What does os.getcwd do?",
    "What does random.shuffle do?",
    "What does math.isqrt do?",
)


def run(running: Running, *, folder: Path) -> None:
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
        report = ingest.run(options, config, embedder=version.embedder, url=running.url)
        if report.exit_code:
            raise CommandError("some files of the demo could not be ingested; see above")
    running.wait([RETRIEVER_APP, *running.apps])
    if is_ours:
        ask_all(running, pipeline)
    running.console.print(how_to_go_on(running.url, pipeline.name, config.models[0].name), highlight=False, soft_wrap=True)


def holds_only_demo(config: PlatformConfig, collection: str) -> bool:
    """Whether the collection is missing, empty, or filled by an earlier demo: nobody's own documents are mixed in."""
    store = open_store(config.vector_store)

    async def documents() -> list[str]:
        return list(await store.documents(collection)) if await store.describe(collection) else []

    return all(name.startswith(f"{ROOT_NAME}/") for name in asyncio.run(documents()))


def ask_all(running: Running, pipeline: PipelineConfig) -> None:
    """Stream the three answers with their citations."""
    with connect(running.url) as client:
        for question in QUESTIONS:
            running.console.print(f"\n[bold]{escape(question)}[/]")
            if not answer(client, pipeline.name, question, console=running.console):
                raise CommandError("the answer came without citations")


def how_to_go_on(url: str, pipeline: str, model: str) -> str:
    """Return the lines that tell a newcomer how to call the platform."""
    return f"""
[bold]{url}/v1[/] serves; Ctrl-C stops everything.

  curl -N {url}/v1/chat/completions -H 'content-type: application/json' \\
    -d '{{"model": "{pipeline}", "stream": true, "messages": \\[{{"role": "user", "content": "What does os.getcwd do?"}}]}}'

  from openai import OpenAI
  client = OpenAI(base_url="{url}/v1", api_key="none")
  for chunk in client.chat.completions.create(
      model="{pipeline}", stream=True, messages=\\[{{"role": "user", "content": "What does os.getcwd do?"}}]
  ):
      print(chunk.choices\\[0].delta.content or "", end="", flush=True)

  .venv/bin/manta ask "What does os.getcwd do?" --url {url}
  .venv/bin/manta status --url {url}

The model without retrieval is "{model}".
"""
