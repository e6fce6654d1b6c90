"""What all tests of `helm test` share: the platform's address, its key, and one way to fail."""

import json
import os
import sys
import time

import httpx

URL = os.environ.get("MANTA_URL", "http://127.0.0.1:8000")
DEADLINE_S = float(os.environ.get("MANTA_TEST_SECONDS", "240"))
KEY = os.environ.get("MANTA_API_KEY", "")
HEADERS = {"authorization": f"Bearer {KEY}"} if KEY else {}
QUESTION = [{"role": "user", "content": "Answer with one word: are you there?"}]


def passed(what):
    sys.stdout.write(f"passed: {what}\n")


def fail(what):
    sys.exit(f"FAILED: {what}")


def until_ready(open_client=httpx.Client, clock=time.monotonic, sleep=time.sleep):
    """Return a client of a platform that serves. It may have just been installed."""
    client = open_client(base_url=URL, headers=HEADERS, timeout=DEADLINE_S)
    deadline_s = clock() + DEADLINE_S
    while True:
        try:
            answer = client.get("/v1/models")
        except httpx.HTTPError as err:
            why = str(err)
        else:
            if answer.status_code == 200:
                return client
            if answer.status_code in (401, 403):
                fail(f"the test's key is not accepted: {answer.text}")
            why = f"{answer.status_code}: {answer.text[:200]}"
        if clock() > deadline_s:
            fail(f"{URL} does not serve after {DEADLINE_S:.0f} s: {why}")
        sleep(2)


def named(variable):
    """Return the names in an environment variable."""
    return json.loads(os.environ.get(variable, "[]"))


def answer_of(response, what):
    """Return a JSON answer, or fail with what the platform said."""
    if response.status_code != 200:
        fail(f"{what}: {response.status_code} {response.text[:500]}")
    return response.json()
