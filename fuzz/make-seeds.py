#!/usr/bin/env python3
"""Makes the inputs with which fuzzing starts: fuzz/seeds/TARGET/NAME.

Fuzzing changes them; so each shows a form that the code tells apart. The same seeds
come out each time.
"""

import io
import json
import pathlib
import shutil
import tarfile

FUZZ = pathlib.Path(__file__).parent
TESTS = FUZZ.parent / "tests"
EXAMPLES = FUZZ.parent / "examples"


def member(name, **fields):
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def archive(*members, format=tarfile.PAX_FORMAT, headers=None):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format, pax_headers=headers) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue().rstrip(b"\0") + bytes(1024)


def manifest():
    """That of an archive in the repository."""
    with tarfile.open(TESTS / "archives/format-1.tar") as tar:
        return tar.extractfile(tar.next()).read()


def archives():
    directory = (member("a/", type=tarfile.DIRTYPE, mode=0o755), b"")
    file = (member("a/file", mtime=1.5), b"data")
    attributes = {
        "SCHILY.xattr.user.a": "value",
        "SCHILY.acl.access": "user::rwx,group::r-x,other::---",
        "LIBARCHIVE.xattr.user.b": "dmFsdWU",
    }
    sparse = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "a/sparse",
        "GNU.sparse.realsize": "8192",
    }
    sparse_map = b"1\n4096\n4\n".ljust(512, b"\0")
    long = "a/" + "long/" * 60 + "file"
    return {
        "empty": bytes(1024),
        "plain": archive(directory, file),
        "no-end": archive(directory, file)[:-1024],
        "ustar": archive(directory, file, format=tarfile.USTAR_FORMAT),
        "gnu-long": archive((member(long), b"x"), format=tarfile.GNU_FORMAT),
        "pax-long": archive((member(long), b"x")),
        "attributes": archive((member("a/file", pax_headers=attributes), b"x")),
        "global": archive(file, headers={"comment": "global", "uid": "12"}),
        "sparse": archive((member("sparse", pax_headers=sparse), sparse_map + b"data")),
        "links": archive(
            directory,
            file,
            (member("a/hard", type=tarfile.LNKTYPE, linkname="a/file"), b""),
            (member("a/soft", type=tarfile.SYMTYPE, linkname="../../etc"), b""),
        ),
        "special": archive(
            (member("fifo", type=tarfile.FIFOTYPE), b""),
            (member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
        ),
        "outside": archive((member("../outside"), b"x"), (member("/absolute"), b"x")),
        "owner": archive((member("a", uid=1 << 40, uname="größe"), b"x")),
        "manifest": archive((member("stack.manifest.json"), manifest()), directory, file),
    }


def answers():
    body = json.dumps([{"Id": "1" * 64, "Names": ["/a"], "State": "running", "Labels": {}}])
    head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
    return {
        "length": f"{head}Content-Length: {len(body)}\r\n\r\n{body}",
        "chunks": f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n{body}\r\n0\r\n\r\n",
        "to-the-end": f"{head}Connection: close\r\n\r\n{body}",
        "refusal": 'HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{"message":"none"}',
        "nothing": "HTTP/1.1 204 No Content\r\n\r\n",
        "compose": json.dumps({
            "name": "a",
            "services": {"web": {"image": "x", "depends_on": {"db": {"condition": "service_healthy"}},
                                 "volumes": [{"type": "volume", "source": "data", "target": "/data"}],
                                 "deploy": {"replicas": 2}, "stop_grace_period": "1m30s"}},
            "volumes": {"data": {"name": "a_data", "driver_opts": {"o": "bind"}}},
        }),
    }  # fmt: skip


def journals():
    container = {
        "id": "1" * 64, "name": "a-web-1", "service": "web", "number": 1, "dependsOn": [],
        "joins": [], "before": "running", "stopTimeoutSecs": 10,
    }  # fmt: skip
    entry = {
        "formatVersion": 1, "stack": "a", "project": "a",
        "compose": {"dir": "/srv/a", "name": None, "files": [], "envFiles": []},
        "stopMethod": "stop", "stopTimeoutSecs": None, "startTimeoutSecs": 180,
        "since": "2026-11-24T03:15:00+01:00", "step": "stopping", "containers": [],
    }  # fmt: skip
    return {
        "entry": json.dumps(entry),
        "of-a-restore": json.dumps(entry | {"forRestore": True, "step": "stopped"}),
        "container": json.dumps(entry | {"containers": [container]}),
        "undo": json.dumps(entry | {"formatVersion": 2, "step": "up", "undos": []}),
        "newer": json.dumps(entry | {"formatVersion": 99}),
    }


def files(directory, pattern):
    return {path.name: path.read_bytes() for path in sorted(directory.glob(pattern))}


def main():
    seeds = {
        "reader": archives(),
        "unpack": archives(),
        "manifest": {"json": manifest(), "archive": archives()["manifest"]},
        "sums": files(TESTS / "archives", "*.sums*"),
        "journal": journals(),
        "config": files(EXAMPLES, "*.json")
        | {"all-options.json": (TESTS / "all-options/etc/docker-stack-backup/config.json").read_bytes()},
        "engine": answers(),
    }
    for target, inputs in seeds.items():
        directory = FUZZ / "seeds" / target
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for name, content in inputs.items():
            content = content if isinstance(content, bytes) else content.encode()
            (directory / name).write_bytes(content)


if __name__ == "__main__":
    main()
