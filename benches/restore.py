"""Unpacking with this program and with GNU tar, in turns, of one archive.

Both put back the same metadata (owners, times, attributes, ACLs). Prints a
table for docs/performance.md.
"""

import argparse
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time

TAR = ["tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf"]


def one_file(tree, mib):
    block = random.Random(1).randbytes(1 << 20)
    with open(tree / "large", "wb") as file:
        for index in range(mib):
            file.write(index.to_bytes(8, "little") + block[8:])


def small_files(tree, count):
    source = random.Random(2)
    for index in range(count):
        if index % 1000 == 0:
            directory = tree / f"{index // 1000:04}"
            directory.mkdir()
        (directory / f"file{index}").write_bytes(source.randbytes(source.randint(1024, 16384)))


def timed(command, target, is_synced):
    os.sync()
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if is_synced:
        subprocess.run(["sync", "-f", target], check=True)
    return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--dir", help="where to work; the file system is what counts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=4096)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    place = pathlib.Path(tempfile.mkdtemp(prefix="dsbbench-", dir=options.dir))
    cases = [
        (f"one file of {options.mib} MiB", lambda tree: one_file(tree, options.mib)),
        (f"{options.files:,} files of 1-16 KiB", lambda tree: small_files(tree, options.files)),
    ]
    print(f"Medians of {options.rounds} rounds, warm.\n")
    print("| data | until | this program | tar -x | ratio |\n|---|---|---|---|---|")
    try:
        for name, make in cases:
            tree = place / "tree"
            tree.mkdir()
            make(tree)
            archive = place / "a.tar"
            subprocess.run(["tar", "--format=posix", "-C", place, "-cf", archive, "tree"], check=True)
            shutil.rmtree(tree)
            for until, is_synced in (("the command ends", False), ("stable storage", True)):
                times = {"ours": [], "tar": []}
                for _ in range(options.rounds):
                    for who in times:
                        target = place / "out"
                        target.mkdir()
                        command = {
                            "ours": [options.program, "--quiet", "restore", archive, "--to", target],
                            "tar": [*TAR, archive, "-C", target],
                        }[who]
                        times[who].append(timed(command, target, is_synced))
                        shutil.rmtree(target)
                ours, tar = (statistics.median(times[who]) for who in ("ours", "tar"))
                print(f"| {name} | {until} | {ours:.2f} s | {tar:.2f} s | {ours / tar:.2f} |", flush=True)
            archive.unlink()
    finally:
        shutil.rmtree(place)


main()
