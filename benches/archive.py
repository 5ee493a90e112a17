#!/usr/bin/env python3
"""Writing an archive, beside `tar -cf` and fsync: this program with what the
kernel has, and as on kernels before 6.14, which have no RWF_DONTCACHE.

The stack is down, so nothing is stopped; the time is that of the phases archive
and finish, which ends on stable storage. Prints a table in Markdown:

    benches/run archive [--dir DIR]

The file system of DIR is what counts; on XFS and Btrfs blocks are shared.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import tempfile
import time

import datasets

COMPOSE = "services: {a: {image: docker-stack-backup/busybox:1, volumes: ['./data:/data']}}\n"
OLD_KERNEL = "DOCKER_STACK_BACKUP_WITHOUT_DONTCACHE"


class Bench:
    def __init__(self, program, place):
        self.program = program
        self.place = place
        self.stack = place / "stack"
        self.store = place / "store"
        self.data = self.stack / "data"
        self.data.mkdir(parents=True)
        (self.stack / "compose.yaml").write_text(COMPOSE)
        self.config = place / "config.json"
        self.config.write_text(json.dumps({
            "stacks": [{"path": str(self.stack), "capture": "offline", "verify": "none"}],
            "backupDir": str(self.store), "stateDir": str(place / "state"), "logFile": None,
        }))  # fmt: skip

    def prepare(self, is_cold):
        shutil.rmtree(self.store, ignore_errors=True)
        self.store.mkdir()
        datasets.set_cache(self.data, is_cold)

    def ours(self, **environment):
        command = [self.program, "run", "--json", "--quiet", "--config", str(self.config)]
        environment = {**os.environ, **environment}
        process = subprocess.run(command, check=True, capture_output=True, env=environment)
        phases = json.loads(process.stdout)["stacks"][0]["phases"]
        times = {phase["phase"]: phase["durationMs"] for phase in phases}
        return (times["archive"] + times["finish"]) / 1000

    def tar(self):
        archive = self.store / "archive.tar"
        began = time.monotonic()
        subprocess.run(["tar", "-cf", archive, "-C", self.place, "stack"], check=True)
        subprocess.run(["sync", archive], check=True)
        return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    datasets.add_options(parser)
    parser.add_argument("--dir", help="where to work")
    options = parser.parse_args()
    print(f"Medians of {options.rounds} rounds, in turns; times faster than tar.\n")
    print("| data | cache | tar and fsync | this program | times | older kernel | times |")
    print("|---|---|---|---|---|---|---|")
    for name, fill in datasets.data_sets(options.mib, options.files):
        with tempfile.TemporaryDirectory(prefix="dsbbench-", dir=options.dir) as place:
            bench = Bench(options.program, pathlib.Path(place))
            fill(bench.data)
            for is_cold in (False, True):
                ways = [bench.tar, bench.ours, lambda: bench.ours(**{OLD_KERNEL: "1"})]
                rounds = []
                for _ in range(options.rounds):
                    times = []
                    for way in ways:
                        bench.prepare(is_cold)
                        times.append(way())
                    rounds.append(times)
                tar, ours, old = (statistics.median(times) for times in zip(*rounds))
                faster = statistics.median(times[0] / times[1] for times in rounds)
                faster_old = statistics.median(times[0] / times[2] for times in rounds)
                cache = "cold" if is_cold else "warm"
                print(
                    f"| {name} | {cache} | {tar:.2f} s | {ours:.2f} s | {faster:.1f} "
                    f"| {old:.2f} s | {faster_old:.1f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
