"""Every pipeline answers, or says that its collection holds nothing yet."""

import client

EMPTY = 409  # a collection without passages, under `no_passages: error`


def main():
    http = client.until_ready()
    for pipeline in client.named("MANTA_TEST_PIPELINES"):
        body = {"model": pipeline, "messages": client.QUESTION, "max_tokens": 8}
        answer = http.post("/v1/chat/completions", json=body)
        if answer.status_code == EMPTY:
            client.passed(f"{pipeline} searched, and its collection is empty")
            continue
        if not client.answer_of(answer, pipeline)["choices"]:
            client.fail(f"{pipeline} gave no answer")
        client.passed(f"{pipeline} answered")


if __name__ == "__main__":
    main()
