"""What the benchmarks archive, and how it comes to be in the page cache or not."""

import os
import pathlib
import random
import shutil
import subprocess

MIB = 1 << 20


def one_big_file(directory, mib):
    block = random.Random(1).randbytes(MIB)
    with open(directory / "big", "wb") as file:
        for number in range(mib):
            # Blocks differ, so that nothing on the way can be clever.
            file.write(number.to_bytes(8, "big") + block[8:])


def small_files(directory, count):
    source = random.Random(2)
    for number in range(count):
        if number % 1000 == 0:
            folder = directory / f"{number // 1000:04}"
            folder.mkdir()
        size = source.randint(1024, 16384)
        (folder / f"file-{number}").write_bytes(source.randbytes(size))


def data_sets(mib, files):
    """Names, and what fills a directory with them."""
    return [
        (f"one file of {mib} MiB", lambda directory: one_big_file(directory, mib)),
        (f"{files:,} files of 1-16 KiB", lambda directory: small_files(directory, files)),
    ]


def add_options(parser):
    parser.add_argument("program", help="the release build of docker-stack-backup")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mib", type=int, default=4096)
    parser.add_argument("--files", type=int, default=100_000)


def empty_store(place):
    """An empty store and state directory beneath `place`: a store that was emptied
    alone is refused, because its file system could be missing."""
    for name in ("store", "state"):
        shutil.rmtree(place / name, ignore_errors=True)
        (place / name).mkdir()


def set_cache(directory, is_cold):
    """Nothing of `directory` is in the page cache, or all of it; nothing is dirty."""
    subprocess.run(["sync"], check=True)
    if is_cold:
        pathlib.Path("/proc/sys/vm/drop_caches").write_text("3")
        return
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                while file.read(MIB):
                    pass
