#!/usr/bin/env python3
"""A whole `run` beside the steps of docker-backup.py, on the same stack.

The script's steps are `docker compose down`, `tar -cf`, `docker compose up -d`.
Both take turns, so that the ratios hold on a noisy machine. Needs root, a
Docker Engine with the image docker-stack-backup/busybox:1 (scripts/lib.sh makes
both) and about 15 GiB. Prints a table in Markdown; one command:

    benches/run against-script
"""

import argparse
import os
import pathlib
import shutil
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
    def __init__(self, program, place):
        self.program = program
        self.place = place
        self.stack = place / f"dsbbench-{os.getpid()}"
        self.data = self.stack / "data"
        self.store = place / "store"
        self.data.mkdir(parents=True)
        (self.stack / "compose.yaml").write_text(COMPOSE)

    def compose(self, *args):
        return call("docker", "compose", "--progress", "quiet", *args, cwd=self.stack)

    def prepare(self, cold):
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        datasets.set_cache(self.data, cold)

    def measure(self, steps, cold):
        self.prepare(cold)
        events = engine.start_events(self.stack.name)
        since = time.time()
        peak_mib = steps()
        wall = time.time() - since
        subprocess.run(["sync", "-f", str(self.store)], check=True)
        durable = time.time() - since
        return {
            "downtime": engine.downtime(events),
            "wall": wall,
            "durable": durable,
            "memory": peak_mib,
        }

    def ours(self):
        return memory.watched(
            self.program, "run", "--quiet", "--stack", str(self.stack),
            "--backup-dir", str(self.store), "--state-dir", str(self.place / "state"),
        )  # fmt: skip

    def script(self):
        self.compose("down")
        archive = self.store / "archive.tar"
        peak_mib = memory.watched("tar", "-cf", str(archive), "-C", str(self.stack.parent), self.stack.name)
        self.compose("up", "--detach")
        return peak_mib


LABELS = [
    ("downtime", "downtime", "s"),
    ("wall", "whole command", "s"),
    ("durable", "until on stable storage", "s"),
    ("memory", "peak memory", "MiB"),
]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    datasets.add_options(parser)
    args = parser.parse_args()
    print(f"Medians of {args.rounds} rounds, taking turns; ratio: this program to the script.\n")
    print("| data | cache | figure | this program | script's steps | ratio |")
    print("|---|---|---|---|---|---|")
    for name, fill in datasets.data_sets(args.mib, args.files):
        with tempfile.TemporaryDirectory(prefix="dsbbench-") as place:
            bench = Bench(args.program, pathlib.Path(place))
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
        a = statistics.median(run[key] for run in ours)
        b = statistics.median(run[key] for run in script)
        ratio = statistics.median(x[key] / y[key] for x, y in zip(ours, script))
        print(f"| {name} | {cache} | {label} | {a:.2f} {unit} | {b:.2f} {unit} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
