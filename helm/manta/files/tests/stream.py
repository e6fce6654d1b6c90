"""Every model streams, and its stream ends as it should."""

import client


def main():
    http = client.until_ready()
    for model in client.named("MANTA_TEST_MODELS"):
        body = {"model": model, "messages": client.QUESTION, "max_tokens": 8, "stream": True}
        with http.stream("POST", "/v1/chat/completions", json=body) as answer:
            lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
        if answer.status_code != 200:
            client.fail(f"{model}: {answer.status_code}")
        if len(lines) < 2 or lines[-1] != "data: [DONE]":
            client.fail(f"{model}: the stream was cut after {len(lines)} events")
        client.passed(f"{model} streamed {len(lines) - 1} events")


if __name__ == "__main__":
    main()
