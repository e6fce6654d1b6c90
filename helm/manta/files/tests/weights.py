"""Traffic is split as the values declare, and every Router follows."""

import json
import os
import time

import client


def wrong(report, wanted):
    """Return what is not as declared, or nothing."""
    if report["refused"]:
        return report["refused"]
    behind = [router for router, version in report["routers"].items() if version != report["table"]["version"]]
    if behind:
        return f"{len(behind)} Routers have an older table in force"
    declared = {split["name"]: split["declared_weights"] for split in report["splits"]}
    for name, weights in wanted.items():
        if declared.get(name, weights) != weights:
            return f"{name} is split {declared[name]}, declared is {weights}"
    return None


def main(clock=time.monotonic, sleep=time.sleep):
    http = client.until_ready()
    wanted = json.loads(os.environ["MANTA_TEST_WEIGHTS"])
    deadline_s = clock() + client.DEADLINE_S
    while why := wrong(client.answer_of(http.get("/admin/rollouts"), "/admin/rollouts"), wanted):
        if clock() > deadline_s:
            client.fail(why)
        sleep(1)
    client.passed(f"weights are as declared: {wanted}")


if __name__ == "__main__":
    main()
