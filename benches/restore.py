"""Unpacking with this program and with GNU tar, in turns, of one archive.

Both put back the same metadata (owners, times, attributes, ACLs). On a new
ext4: on one that is old and full, finding room takes longer than all else, for
either. Prints a table for docs/performance.md.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import time

import datasets
import filesystems

TAR = ["tar", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf"]


def timed(command, target, is_synced):
    os.sync()
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if is_synced:
        subprocess.run(["sync", "-f", target], check=True)
    return time.monotonic() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    datasets.add_options(parser)
    parser.add_argument("--dir", help="where to work")
    options = parser.parse_args()
    print(f"Medians of {options.rounds} rounds, warm.\n")
    print("| data | until | this program | tar -x | ratio |\n|---|---|---|---|---|")
    for name, make in datasets.data_sets(options.mib, options.files):
        with filesystems.mounted("ext4", 16, options.dir) as place:
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


if __name__ == "__main__":
    main()
