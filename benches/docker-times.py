#!/usr/bin/env python3
"""Docker's part of the downtime: a `run` of a stack with next to no data beside
`docker compose stop` and `docker compose start`, by turns.

Two independent services with `init: true`. For Compose, the seconds that both
commands take; for this program, what it reports as downtime less its archive
phase, and beside it the requests it made while the stack was down. Needs root
and a Docker Engine with the image docker-stack-backup/busybox:1. One command:

    benches/run docker-times
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import tempfile
import time

COMPOSE = """\
services:
  one: &service
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
  two: *service
"""


def call(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options)


def downtime(program, place, stack, *options):
    """Milliseconds of docker's part, and the requests between stop and start."""
    done = call(program, "run", "--stack", stack, "--backup-dir", place / "store",
                "--state-dir", place / "state", "--json", "--verbose", *options)  # fmt: skip
    outcome = json.loads(done.stdout)["stacks"][0]
    phases = {phase["phase"]: phase["durationMs"] for phase in outcome["phases"]}
    lines = done.stderr.splitlines()
    first = next(i for i, line in enumerate(lines) if "stopping" in line)
    last = next(i for i, line in enumerate(lines) if "up again" in line)
    requests = []
    for line in lines[first:last]:
        asked = re.search(r"target=\"?(\S+?)\"? .*duration_ms=(\d+)", line)
        if asked:
            requests.append((re.sub(r"[0-9a-f]{64}", "ID", asked[1]), int(asked[2])))
    return outcome["downtimeMs"] - phases["archive"], requests


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    ours, stops, starts, both = [], [], [], []
    with tempfile.TemporaryDirectory(prefix="dsbbench-") as place:
        place = pathlib.Path(place)
        stack = place / f"dsbbench-{os.getpid()}"
        stack.mkdir()
        (stack / "compose.yaml").write_text(COMPOSE)
        compose = ["docker", "compose", "--progress", "quiet"]
        call(*compose, "up", "--detach", "--wait", cwd=stack)
        try:
            for _ in range(options.rounds):
                began = time.monotonic()
                call(*compose, "stop", cwd=stack)
                stopped = time.monotonic()
                call(*compose, "start", cwd=stack)
                started = time.monotonic()
                stops.append((stopped - began) * 1000)
                starts.append((started - stopped) * 1000)
                both.append((started - began) * 1000)
                milliseconds, requests = downtime(options.program, place, stack)
                ours.append(milliseconds)
        finally:
            call(*compose, "down", "--volumes", "--timeout", "0", cwd=stack)
    script, own = statistics.median(both), statistics.median(ours)
    print(f"Medians of {options.rounds} rounds, two independent services.\n")
    print("| what | ms |\n| --- | ---: |")
    print(f"| `docker compose stop` | {statistics.median(stops):.0f} |")
    print(f"| `docker compose start` | {statistics.median(starts):.0f} |")
    print(f"| both | {script:.0f} |")
    print(f"| docker's part of this program's downtime | {own:.0f} |")
    print(f"| ratio | {own / script:.2f} |")
    print("\nRequests of the last round:\n")
    for target, milliseconds in requests:
        print(f"- {target}: {milliseconds} ms")


if __name__ == "__main__":
    main()
