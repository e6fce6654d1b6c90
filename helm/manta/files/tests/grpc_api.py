"""The gRPC API lists and streams what the REST API does."""

import asyncio
import os

import client

from serve_app.errors import PlatformError
from serve_app.rpc.client import MantaClient
from serve_app.rpc.results import Message, Sampling


async def check(target, models, connect=MantaClient):
    """Let every model stream over gRPC."""
    messages = [Message(**message) for message in client.QUESTION]
    async with connect(target, api_key=client.KEY or None, timeout_s=client.DEADLINE_S) as platform:
        listed = {model.id for model in await platform.list_models()}
        for model in models:
            if model not in listed:
                client.fail(f"{model} is not among {sorted(listed)}")
            stream = platform.chat(model, messages, sampling=Sampling(max_tokens=8))
            pieces = [piece async for piece in stream]
            if not pieces:
                client.fail(f"{model} streamed nothing over gRPC")
            client.passed(f"{model} streamed {len(pieces)} messages over gRPC")


def main():
    client.until_ready()
    try:
        asyncio.run(check(os.environ["MANTA_GRPC"], client.named("MANTA_TEST_MODELS")))
    except PlatformError as err:
        client.fail(f"gRPC: {err}")


if __name__ == "__main__":
    main()
