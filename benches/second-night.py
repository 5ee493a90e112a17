#!/usr/bin/env python3
"""What a second night adds to a repository of Borg or restic, by the way the
archives are handed over: after a minute of pgbench (100 transactions a second)
on a database of 1.4 GB, and after 1 % of 100,000 small files were written anew.

What truly changed is counted in blocks of 4 KiB that the second archive has and
the first has not at that place of the same file. Repositories are not encrypted.
That of the database is not compressed, that of the small files, whose data is
random, as it comes: so only what Borg and restic keep about files is. Needs root, the Docker Engine and the images of
scripts/lib.sh, borg, restic, and 20 GiB. Prints a table in Markdown:

    benches/run second-night
"""

import argparse
import contextlib
import os
import pathlib
import random
import shutil
import subprocess
import tarfile
import tempfile

import datasets
import downtime

BLOCK_BYTES = 4096
SMALL_FILES = 100_000
COMPOSE = "services: {a: {image: docker-stack-backup/busybox:1, volumes: ['./data:/data']}}\n"


def call(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def disk_bytes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def borg(*how):
    """Each archive by itself, into one repository."""

    def night(repository, archive, is_compressed):
        environment = {
            **os.environ,
            "BORG_REPO": str(repository),
            "BORG_BASE_DIR": f"{repository}-base",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        if not repository.exists():
            call("borg", "init", "--encryption", "none", env=environment)
        options = [] if is_compressed else ["--compression", "none"]
        call("borg", *how, *options, f"::{archive.stem}", archive, env=environment)

    return night


def restic(repository, archive, is_compressed):
    command = ["restic", "--quiet", "--repo", repository, "--no-cache"]
    environment = {**os.environ, "RESTIC_PASSWORD": "benchmark"}
    if not repository.exists():
        call(*command, "init", "--repository-version", "2", env=environment)
    # Of the same path every night, as it would be with a mount.
    with open(archive, "rb") as file:
        options = ["--stdin", "--stdin-filename", "archive.tar"]
        options += [] if is_compressed else ["--compression", "off"]
        call(*command, "backup", *options, stdin=file, env=environment)


WAYS = {
    "`borg import-tar`": borg("import-tar"),
    "`borg create --chunker-params fixed,4096`": borg("create", "--chunker-params", "fixed,4096"),
    "`borg create --chunker-params buzhash,9,16,12,255`": borg(
        "create", "--chunker-params", "buzhash,9,16,12,255"
    ),
    "`borg create`, as it comes": borg("create"),
    "`restic backup`, as it comes": restic,
}


def changed_bytes(first, second):
    """Bytes of the second archive's files in blocks that the first has not there."""
    changed = 0
    with tarfile.open(first) as old, tarfile.open(second) as new:
        before = {member.name: member for member in old if member.isfile()}
        for member in new:
            if not member.isfile():
                continue
            file = new.extractfile(member)
            was = before.get(member.name)
            other = old.extractfile(was) if was else None
            while block := file.read(BLOCK_BYTES):
                if other is None or other.read(len(block)) != block:
                    changed += len(block)
    return changed


@contextlib.contextmanager
def database(program, place):
    bench = downtime.Bench(program, place, scale=90, mib=1)
    try:
        yield (
            bench.ours,
            lambda: bench.sql("pgbench", "--no-vacuum", "--client=4", "--rate=100", "--time=60"),
            bench.store,
        )
    finally:
        bench.compose("down", "--timeout", "0")


@contextlib.contextmanager
def small_files(program, place):
    stack, store = place / "stack", place / "store"
    (stack / "data").mkdir(parents=True)
    (stack / "compose.yaml").write_text(COMPOSE)
    datasets.small_files(stack / "data", SMALL_FILES)

    def night():
        call(program, "run", "--quiet", "--stack", stack, "--backup-dir", store,
             "--state-dir", place / "state")  # fmt: skip

    def day():
        source = random.Random(3)
        files = sorted((stack / "data").rglob("file-*"))
        for path in source.sample(files, len(files) // 100):
            path.write_bytes(source.randbytes(source.randint(1024, 16384)))

    yield night, day, store


def measure(program, kind, is_compressed, parent):
    """Bytes that changed, and what each way stores of the first and second night."""
    with tempfile.TemporaryDirectory(prefix="dsbbench-", dir=parent) as place:
        place = pathlib.Path(place)
        with kind(program, place) as (night, day, store):
            night()
            day()
            night()
        first, second = sorted(store.rglob("*.tar"))
        stored = {}
        for way, hand_over in WAYS.items():
            repository = place / "repository"
            hand_over(repository, first, is_compressed)
            before = disk_bytes(repository)
            hand_over(repository, second, is_compressed)
            stored[way] = disk_bytes(repository) - before
            shutil.rmtree(repository)
            shutil.rmtree(f"{repository}-base", ignore_errors=True)
        return changed_bytes(first, second), stored


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", help="the release build of docker-stack-backup")
    parser.add_argument("--dir", help="where to work")
    options = parser.parse_args()
    program = str(pathlib.Path(options.program).resolve())
    (changed, of_database), (changed_small, of_small) = (
        measure(program, kind, is_compressed, options.dir)
        for kind, is_compressed in ((database, False), (small_files, True))
    )
    print("| | database | times what changed | small files | times what changed |")
    print("|---|---|---|---|---|")
    mb = lambda count: f"{count / 1e6:.0f} MB"
    print(f"| truly changed | {mb(changed)} | | {mb(changed_small)} | |")
    for way in WAYS:
        a, b = of_database[way], of_small[way]
        print(f"| {way} | {mb(a)} | {a / changed:.2f} | {mb(b)} | {b / changed_small:.2f} |")


if __name__ == "__main__":
    main()
