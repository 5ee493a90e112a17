#!/usr/bin/env python3
"""Writing an archive, beside `tar -cf` and fsync: this program with what the
kernel has, and as on kernels before 6.14, which have no RWF_DONTCACHE: strace
makes the kernel refuse it. The program stops using it at the first refusal, so
strace costs nothing after that.

The stack is down, so nothing is stopped; the time is that of the phases archive
and finish, which ends on stable storage. Prints a table in Markdown:

    benches/run archive [--file-system xfs|btrfs]

Blocks are shared on XFS and Btrfs. "Extra" is how much less is free afterwards.
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import datasets
import filesystems

COMPOSE = "services: {a: {image: docker-stack-backup/busybox:1, volumes: ['./data:/data']}}\n"
# pwritev2 is only called with RWF_DONTCACHE.
OLD_KERNEL = [
    "strace", "--follow-forks", "--seccomp-bpf", "--quiet=all", "--output=/dev/null",
    "--trace=pwritev2", "--inject=pwritev2:error=EOPNOTSUPP",
]  # fmt: skip


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
        datasets.empty_store(self.place)
        datasets.set_cache(self.data, is_cold)
        self.free_before = free_bytes(self.place)

    def ours(self, *wrapper):
        command = [self.program, "run", "--json", "--quiet", "--config", str(self.config)]
        process = subprocess.run([*wrapper, *command], check=True, capture_output=True)
        phases = json.loads(process.stdout)["stacks"][0]["phases"]
        self.extra_bytes = self.free_before - free_bytes(self.place)
        times = {phase["phase"]: phase["durationMs"] for phase in phases}
        return (times["archive"] + times["finish"]) / 1000

    def tar(self):
        archive = self.store / "archive.tar"
        began = time.monotonic()
        subprocess.run(["tar", "-cf", archive, "-C", self.place, "stack"], check=True)
        subprocess.run(["sync", archive], check=True)
        return time.monotonic() - began


def free_bytes(place):
    # Btrfs tells what is free as of its last transaction.
    subprocess.run(["sync", "--file-system", place], check=True)
    state = os.statvfs(place)
    return state.f_bfree * state.f_frsize


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    datasets.add_options(parser)
    parser.add_argument("--dir", help="where to work")
    parser.add_argument("--file-system", choices=["host", *filesystems.MKFS], default="host")
    options = parser.parse_args()
    print(f"Medians of {options.rounds} rounds, in turns; times faster than tar.\n")
    print("| data | cache | tar and fsync | this program | times | older kernel | times | extra |")
    print("|---|---|---|---|---|---|---|---|")
    for name, fill in datasets.data_sets(options.mib, options.files):
        with filesystems.mounted(options.file_system, 30, options.dir) as place:
            bench = Bench(options.program, place)
            fill(bench.data)
            for is_cold in (False, True):
                ways = [bench.tar, bench.ours, lambda: bench.ours(*OLD_KERNEL)]
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
                    f"| {name} | {cache} | {tar:.2f} s | {ours * 1000:.0f} ms | {faster:.1f} "
                    f"| {old * 1000:.0f} ms | {faster_old:.1f} | {bench.extra_bytes / 1024:.0f} KiB |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
