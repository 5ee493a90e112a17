#!/usr/bin/env python3
"""What sharing blocks with an archive costs the stack afterwards: PostgreSQL's
rate before and after a run with and without sharing, and how fast its files are
read from the disk.

Each way begins with a new database on a new file system. Needs root, the Docker
Engine and the images of scripts/lib.sh, xfsprogs, btrfs-progs, and 20 GiB.
Prints a table in Markdown:

    benches/run sharing
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import time

import downtime
import filesystems

SCALE = 100
WINDOW_SECONDS = 15
WINDOWS = 3


def rate(bench):
    """Transactions a second, for one window."""
    said = bench.sql("pgbench", "--no-vacuum", "--client=4", f"--time={WINDOW_SECONDS}")
    return float(re.search(r"tps = ([0-9.]+)", said)[1])


def read_mib_s(bench):
    """Of the database's files, which are not in the page cache."""
    subprocess.run(["sync"], check=True)
    pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
    began, read = time.monotonic(), 0
    for path in (bench.stack / "database").rglob("base/*/*"):
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                read += len(part)
    return read / (1 << 20) / (time.monotonic() - began)


def run(bench, share):
    config = bench.place / "config.json"
    config.write_text(json.dumps({
        "stacks": [{"path": str(bench.stack), "share": share, "verify": "none"}],
        "backupDir": str(bench.store), "stateDir": str(bench.place / "state"), "logFile": None,
    }))  # fmt: skip
    out = downtime.call(bench.program, "run", "--quiet", "--json", "--config", config)
    return json.loads(out)["stacks"][0]


def measure(program, kind, share, parent):
    with filesystems.mounted(kind, 20, parent) as place:
        bench = downtime.Bench(program, place, SCALE, mib=1)
        bench.store.mkdir()
        try:
            rate(bench)
            before = statistics.median(rate(bench) for _ in range(WINDOWS))
            read_before = read_mib_s(bench)
            rate(bench)
            outcome = run(bench, share)
            after = [rate(bench) for _ in range(WINDOWS)]
            shared = outcome["capture"]["sharedBytes"] / (1 << 20)
            return shared, before, after, read_before, read_mib_s(bench)
        finally:
            bench.compose("down", "--timeout", "0")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the release build of docker-stack-backup")
    parser.add_argument("--dir", help="where to work")
    options = parser.parse_args()
    print(f"Transactions a second, in windows of {WINDOW_SECONDS} s.\n")
    print("| file system | shared | before | after, first window | second | third | reading before | after |")
    print("|---|---|---|---|---|---|---|---|")
    for kind in ("xfs", "btrfs"):
        for share in (True, False):
            shared, before, after, *read = measure(options.program, kind, share, options.dir)
            windows = " | ".join(f"{tps:.0f} ({tps / before:.2f})" for tps in after)
            reading = " | ".join(f"{mib:.0f} MiB/s" for mib in read)
            print(f"| {kind} | {shared:.0f} MiB | {before:.0f} | {windows} | {reading} |", flush=True)


if __name__ == "__main__":
    main()
