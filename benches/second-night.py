#!/usr/bin/env python3
"""What a second and a third night add to a repository of Borg or restic, by the way the
archives are handed over: after a minute of pgbench (100 transactions a second)
on a database of 1.4 GB, and after 1 % of 100,000 small files were written anew.

What truly changed is counted in blocks of 4 KiB that an archive has and the one before
has not at that place of the same file. Repositories of Borg are not encrypted. That of the
database is not compressed, that of the small files, whose data is random, as it comes: so
only what Borg and restic keep about files is. `handover` compresses as it comes in both.
Needs root, the Docker Engine and the images of scripts/lib.sh, borg, restic, and 20 GiB.
Prints a table in Markdown:

    benches/run second-night
"""

import argparse
import contextlib
import json
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
LATER_NIGHTS = 2
COMPOSE = "services: {a: {image: docker-stack-backup/busybox:1, volumes: ['./data:/data']}}\n"


def call(*command, **options):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)


def disk_bytes(directory):
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def borg(*how):
    """Each archive by itself, into one repository."""

    def night(repository, archive, is_compressed, _program):
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


def restic(repository, archive, is_compressed, _program):
    command = ["restic", "--quiet", "--repo", repository, "--no-cache"]
    environment = {**os.environ, "RESTIC_PASSWORD": "benchmark"}
    if not repository.exists():
        call(*command, "init", "--repository-version", "2", env=environment)
    # Of the same path every night, as it would be with a mount.
    with open(archive, "rb") as file:
        options = ["--stdin", "--stdin-filename", "archive.tar"]
        options += [] if is_compressed else ["--compression", "off"]
        call(*command, "backup", *options, stdin=file, env=environment)


def handover(kind):
    """By the program itself: a store that gets one archive after the other."""

    def night(repository, archive, is_compressed, program):
        place = pathlib.Path(f"{repository}-handover")
        stack = archive.parent.name
        store = place / "store" / stack
        store.mkdir(parents=True, exist_ok=True)
        for file in (archive, archive.with_suffix(".sums")):
            if file.exists():
                os.link(file, store / file.name)
        passphrase = place / "passphrase"
        passphrase.write_text("benchmark")
        environment = {**os.environ, "BORG_REPO": str(repository), "BORG_BASE_DIR": str(place)}
        environment["BORG_PASSPHRASE"] = environment["RESTIC_PASSWORD"] = "benchmark"
        if not repository.exists():
            command = {
                "borg": ["borg", "init", "--encryption", "none"],
                "restic": ["restic", "--repo", repository, "init", "--repository-version", "2"],
            }[kind]
            call(*command, env=environment)
        config = {
            "stacks": [stack],
            "backupDir": str(place / "store"),
            "stateDir": str(place / "state"),
            "logFile": None,
            "handover": [
                {
                    "kind": kind,
                    "repository": str(repository),
                    "passphraseFile": str(passphrase),
                    "environment": {"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"},
                    "checkDays": None,
                }
            ],
        }
        file = place / "config.json"
        file.write_text(json.dumps(config))
        call(program, "--quiet", "--config", file, "handover")

    return night


WAYS = {
    "`handover` to Borg": handover("borg"),
    "`handover` to restic": handover("restic"),
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

    source = random.Random(3)

    def day():
        files = sorted((stack / "data").rglob("file-*"))
        for path in source.sample(files, len(files) // 100):
            path.write_bytes(source.randbytes(source.randint(1024, 16384)))

    yield night, day, store


def measure(program, kind, is_compressed, parent):
    """Bytes that changed in each night after the first, and what each way stores of them."""
    with tempfile.TemporaryDirectory(prefix="dsbbench-", dir=parent) as place:
        place = pathlib.Path(place)
        with kind(program, place) as (night, day, store):
            night()
            for _ in range(LATER_NIGHTS):
                day()
                night()
        archives = sorted(store.rglob("*.tar"))
        stored = {}
        for way, hand_over in WAYS.items():
            repository = place / "repository"
            stored[way] = []
            for archive in archives:
                before = disk_bytes(repository)
                hand_over(repository, archive, is_compressed, program)
                stored[way].append(disk_bytes(repository) - before)
            del stored[way][0]
            shutil.rmtree(repository)
            for left in ("base", "handover"):
                shutil.rmtree(f"{repository}-{left}", ignore_errors=True)
        changed = [changed_bytes(*pair) for pair in zip(archives, archives[1:])]
        return changed, stored


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
    titles = ["second night", "times", "third night", "times"]
    print("| | " + " | ".join(f"{kind}: {t}" for kind in ("database", "files") for t in titles) + " |")
    print("|---" * (1 + 4 * 2) + "|")
    mb = lambda count: f"{count / 1e6:.0f} MB"
    row = lambda name, cells: print(f"| {name} | " + " | ".join(cells) + " |")
    row("truly changed", [cell for count in changed + changed_small for cell in (mb(count), "")])
    for way in WAYS:
        pairs = zip(of_database[way] + of_small[way], changed + changed_small)
        row(way, [cell for new, was in pairs for cell in (mb(new), f"{new / was:.2f}")])


if __name__ == "__main__":
    main()
