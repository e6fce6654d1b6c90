"""Every model answers a chat request."""

import client


def main():
    http = client.until_ready()
    for model in client.named("MANTA_TEST_MODELS"):
        body = {"model": model, "messages": client.QUESTION, "max_tokens": 8}
        answer = client.answer_of(http.post("/v1/chat/completions", json=body), model)
        if answer["usage"]["completion_tokens"] < 1:
            client.fail(f"{model} generated nothing")
        client.passed(f"{model} answered")


if __name__ == "__main__":
    main()
