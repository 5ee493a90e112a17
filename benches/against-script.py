#!/usr/bin/env python3
"""A whole `run` beside the steps of docker-backup.py, on the same stack.

The script's steps are `docker compose down`, `tar -cf`, `docker compose up -d`.
Both take turns, so that the ratios hold on a noisy machine. Needs root, a
Docker Engine with the image docker-stack-backup/busybox:1 (scripts/lib.sh makes
both) and about 15 GiB. Prints a table in Markdown; one command:

    benches/run against-script
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

import datasets
import engine
import memory

COMPOSE = """\
services:
  db:
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
    volumes: ["./data:/data"]
  web:
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
    depends_on: [db]
"""

def call(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


class Bench:
    def __init__(self, program, place, verify):
        self.program = program
        self.place = place
        self.stack = place / f"dsbbench-{os.getpid()}"
        self.data = self.stack / "data"
        self.store = place / "store"
        self.data.mkdir(parents=True)
        (self.stack / "compose.yaml").write_text(COMPOSE)
        self.config = place / "config.json"
        self.config.write_text(json.dumps({
            "stacks": [{"path": str(self.stack), "verify": verify}],
            "backupDir": str(self.store), "stateDir": str(place / "state"), "logFile": None,
        }))  # fmt: skip

    def compose(self, *args):
        return call("docker", "compose", "--progress", "quiet", *args, cwd=self.stack)

    def prepare(self, cold):
        datasets.empty_store(self.place)
        datasets.set_cache(self.data, cold)

    def measure(self, steps, cold):
        self.prepare(cold)
        events = engine.start_events(self.stack.name)
        since, cpu = time.time(), cpu_seconds()
        peak_mib = steps()
        wall = time.time() - since
        cpu = cpu_seconds() - cpu
        subprocess.run(["sync", "-f", str(self.store)], check=True)
        durable = time.time() - since
        return {
            "downtime": engine.downtime(events),
            "wall": wall,
            "durable": durable,
            "cpu": cpu,
            "memory": peak_mib,
        }

    def ours(self):
        return memory.watched(self.program, "run", "--quiet", "--config", str(self.config))

    def script(self):
        self.compose("down")
        archive = self.store / "archive.tar"
        peak_mib = memory.watched("tar", "-cf", str(archive), "-C", str(self.stack.parent), self.stack.name)
        self.compose("up", "--detach")
        return peak_mib


def cpu_seconds():
    """Of this process and its children; writing to storage is not in it."""
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in (own, children))


LABELS = [
    ("downtime", "downtime", "s"),
    ("wall", "whole command", "s"),
    ("durable", "until on stable storage", "s"),
    ("cpu", "CPU time", "s"),
    ("memory", "peak memory", "MiB"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    datasets.add_options(parser)
    parser.set_defaults(files=50_000)
    parser.add_argument("--verify", choices=["none", "structure", "written", "full"], default="written")
    args = parser.parse_args()
    print(f"Medians and ranges of {args.rounds} rounds, taking turns; verify: {args.verify};")
    print("ratio: this program to the script.\n")
    print("| data | cache | figure | this program | script's steps | ratio |")
    print("|---|---|---|---|---|---|")
    for name, fill in datasets.data_sets(args.mib, args.files):
        with tempfile.TemporaryDirectory(prefix="dsbbench-") as place:
            bench = Bench(args.program, pathlib.Path(place), args.verify)
            fill(bench.data)
            bench.compose("up", "--detach")
            try:
                for cold in (False, True):
                    ours, script = [], []
                    for _ in range(args.rounds):
                        ours.append(bench.measure(bench.ours, cold))
                        script.append(bench.measure(bench.script, cold))
                    row(name, "cold" if cold else "warm", ours, script)
            finally:
                bench.compose("down", "--timeout", "1")


def row(name, cache, ours, script):
    for key, label, unit in LABELS:
        a, b = ([run[key] for run in runs] for runs in (ours, script))
        ratios = [x / y for x, y in zip(a, b)]
        cells = [f"{spread(a)} {unit}", f"{spread(b)} {unit}", spread(ratios)]
        print(f"| {name} | {cache} | {label} | {' | '.join(cells)} |", flush=True)


def spread(values):
    """The median, and the range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


if __name__ == "__main__":
    main()
