#!/usr/bin/env python3
"""The downtime of a stack with PostgreSQL under load and a directory of files
that rest: beside a bare `docker compose stop` and `start`, beside the script's
steps, and as the data grows.

pgbench (4 clients) runs until the stack stops, and again as soon as it is up.
Downtime is what the Engine saw, from the first stop signal to the last start.
The ways take turns. Needs root, the Docker Engine and the images of
scripts/lib.sh, and 45 GiB. Prints a table in Markdown for each case:

    benches/run downtime [CASE...]
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import threading
import time

import datasets
import engine
import filesystems

COMPOSE = """\
services:
  db:
    image: docker-stack-backup/debian:1
    command: postgres-server
    init: true
    stop_signal: SIGINT
    volumes: ["./database:/var/lib/postgresql/data"]
    healthcheck:
      test: ["CMD", "pg_isready", "-q", "-U", "postgres"]
      interval: 500ms
      timeout: 5s
      retries: 60
  web:
    image: docker-stack-backup/busybox:1
    command: sleep infinity
    init: true
    volumes: ["./files:/files"]
"""
# Of pgbench before each measurement: long enough that all is warm and dirty.
LOAD_SECONDS = 5
END_SESSIONS = (
    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'pgbench'"
)
# A unit of pgbench's --scale is 15 MB.
# name: (file system, MiB of files, scales of the database, ways)
CASES = {
    "script": ("host", [4096], [100], ["stop and start", "this program", "script's steps"]),
    "files": ("host", [1024, 4096, 16384], [10], ["stop and start", "this program"]),
    "xfs": ("xfs", [1024], [25, 100, 400], ["stop and start", "this program"]),
    "btrfs": ("btrfs", [1024], [25, 100, 400], ["stop and start", "this program"]),
}


def call(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


class Load:
    """pgbench until it is told to end, whatever becomes of the database."""

    def __init__(self, container):
        self.container = container
        self.is_over = False
        self.thread = threading.Thread(target=self.repeat)
        self.thread.start()

    def repeat(self):
        while not self.is_over:
            self.run("pgbench", "--no-vacuum", "--client=4", "--time=3600")
            time.sleep(0.1)

    def run(self, *command):
        exec_ = ["docker", "exec", self.container, "runuser", "-u", "postgres", "--", *command]
        subprocess.run(exec_, capture_output=True)

    def end(self):
        self.is_over = True
        # It ends with its sessions, which it may only be about to begin.
        while self.thread.is_alive():
            self.run("psql", "--command", END_SESSIONS)
            self.thread.join(0.5)


class Bench:
    def __init__(self, program, place, scale, mib):
        self.program = program
        self.place = place
        self.stack = place / f"dsbbench-{os.getpid()}"
        self.store = place / "store"
        self.files = self.stack / "files"
        self.files.mkdir(parents=True)
        (self.stack / "database").mkdir()
        (self.stack / "compose.yaml").write_text(COMPOSE)
        datasets.one_big_file(self.files, mib)
        self.compose("up", "--detach", "--wait")
        self.container = self.compose("ps", "--quiet", "db").strip()
        self.sql("pgbench", "--initialize", "--quiet", f"--scale={scale}")

    def sql(self, *command):
        return call("docker", "exec", self.container, "runuser", "-u", "postgres", "--", *command)

    def compose(self, *args):
        return call("docker", "compose", "--progress", "quiet", *args, cwd=self.stack)

    def measure(self, way):
        """Seconds of downtime."""
        datasets.empty_store(self.place)
        self.compose("up", "--detach", "--wait")
        os.sync()
        load = Load(self.container)
        time.sleep(LOAD_SECONDS)
        events = engine.start_events(self.stack.name)
        try:
            self.ways()[way]()
        finally:
            load.end()
        return engine.downtime(events)

    def ways(self):
        return {
            "stop and start": self.stop_and_start,
            "this program": self.ours,
            "script's steps": self.script,
        }

    def stop_and_start(self):
        self.compose("stop")
        self.compose("start")

    def ours(self):
        out = call(
            self.program, "run", "--quiet", "--json", "--stack", self.stack,
            "--backup-dir", self.store, "--state-dir", self.place / "state",
        )  # fmt: skip
        self.outcome = json.loads(out)["stacks"][0]

    def script(self):
        self.compose("down")
        call("tar", "-cf", self.store / "archive.tar", "-C", self.place, self.stack.name)
        self.compose("up", "--detach")
        self.container = self.compose("ps", "--quiet", "db").strip()


def case(name, program, rounds, parent):
    kind, sizes, scales, ways = CASES[name]
    with_scale = len(scales) > 1
    what = "database grows" if with_scale else "files grow" if len(sizes) > 1 else "all three"
    print(f"\n{what}, {kind}; medians of {rounds} rounds and their range\n")
    print("| files | database | way | downtime | range | copied while down |")
    print("|---|---|---|---|---|---|", flush=True)
    for mib in sizes:
        for scale in scales:
            with filesystems.mounted(kind, 45, parent) as place:
                one_size(Bench(program, place, scale, mib), mib, scale, ways, rounds)


def one_size(bench, mib, scale, ways, rounds):
    try:
        times = {way: [] for way in ways}
        copied = []
        for _ in range(rounds):
            for way in ways:
                times[way].append(bench.measure(way))
                if way == "this program":
                    copied.append(bench.outcome["capture"]["downBytes"])
        for way, seconds in times.items():
            down = f"{statistics.median(copied) / datasets.MIB:.0f} MiB" if way == "this program" else ""
            print(
                f"| {mib} MiB | {scale * 15} MB | {way} | {statistics.median(seconds):.2f} s "
                f"| {min(seconds):.2f}-{max(seconds):.2f} s | {down} |",
                flush=True,
            )
        phases = {phase["phase"]: phase["durationMs"] for phase in bench.outcome["phases"]}
        capture = bench.outcome["capture"]
        print("last run, ms:", phases, bench.outcome["downtimeMs"], capture, flush=True)
    finally:
        bench.compose("down", "--timeout", "0")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the release build of docker-stack-backup")
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dir", help="where to work")
    options = parser.parse_args()
    for name in options.cases:
        case(name, options.program, options.rounds, options.dir)


if __name__ == "__main__":
    main()
