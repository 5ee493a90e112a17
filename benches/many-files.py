#!/usr/bin/env python3
"""What the number of files costs a stack that runs and writes nothing: the scan
while it is down, and the memory. And the memory that one large file takes.

`quiet` is the scan and the search for writers, `archive` the comparison with
the draft. The cache is warm. Needs root and the Docker Engine and the images of
scripts/lib.sh. Prints a table in Markdown:

    benches/run many-files [--files N...]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile

import datasets
import memory

COMPOSE = """\
services:
  app:
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
    volumes: ["./data:/data"]
"""


def tiny_files(directory, count):
    for number in range(count):
        if number % 1000 == 0:
            folder = directory / f"{number // 1000:04}"
            folder.mkdir()
        (folder / f"file-{number}").write_bytes(b"%d" % number)


def measure(program, rounds, fill):
    """Medians of milliseconds by phase, of the downtime, and of the memory in MiB."""
    with tempfile.TemporaryDirectory(prefix="dsbbench-") as place:
        place = pathlib.Path(place)
        stack = place / f"dsbbench-{os.getpid()}"
        (stack / "data").mkdir(parents=True)
        (stack / "compose.yaml").write_text(COMPOSE)
        fill(stack / "data")
        compose = ["docker", "compose", "--progress", "quiet"]
        subprocess.run([*compose, "up", "--detach"], cwd=stack, check=True)
        found = {"quiet": [], "archive": [], "downtime": [], "memory": []}
        try:
            for _ in range(rounds):
                datasets.set_cache(stack / "data", is_cold=False)
                peak_mib = memory.watched(
                    program, "run", "--quiet", "--stack", stack, "--backup-dir", place / "store",
                    "--state-dir", place / "state",
                )  # fmt: skip
                last = json.loads((place / "state" / "last-run.json").read_text())["stacks"][0]
                phases = {phase["phase"]: phase["durationMs"] for phase in last["phases"]}
                found["quiet"].append(phases["quiet"])
                found["archive"].append(phases["archive"])
                found["downtime"].append(last["downtimeMs"])
                found["memory"].append(peak_mib)
        finally:
            subprocess.run([*compose, "down", "--timeout", "0"], cwd=stack, check=True)
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the release build of docker-stack-backup")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, default=4096)
    parser.add_argument("--files", type=int, nargs="*", default=[1000, 100_000, 1_000_000])
    options = parser.parse_args()
    cases = [(f"{count:,} files", lambda d, n=count: tiny_files(d, n)) for count in options.files]
    cases.append((f"one file of {options.mib} MiB", lambda d: datasets.one_big_file(d, options.mib)))
    print(f"Medians of {options.rounds} rounds.\n")
    print("| data | quiet, with the scan | archive | downtime | peak memory |\n|---|---|---|---|---|")
    for name, fill in cases:
        found = measure(options.program, options.rounds, fill)
        print(
            f"| {name} | {found['quiet']:.0f} ms | {found['archive']:.0f} ms "
            f"| {found['downtime']:.0f} ms | {found['memory']:.1f} MiB |",
            flush=True,
        )


if __name__ == "__main__":
    main()
