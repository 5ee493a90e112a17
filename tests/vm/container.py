"""A Debian machine in a container: systemd is its first process, and an image file
is its disk. The kernel is the host's; the container can neither set its clock nor
load modules.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

# Where the scenarios' commands find programs, as under NixOS's driver.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ":/nix/store/00000000000000000000000000000000-docker-stack-backup/bin",
    "HOME": "/root",
    "USER": "root",
    "COMPOSE_ANSI": "never",
    "COMPOSE_PROGRESS": "plain",
}
LIMIT_SECONDS = 120
# linux/mount.h and fs/ext4/ext4.h.
CLONE_NEWNS = 0x20000
EXT4_IOC_SHUTDOWN = 0x8004587D
EXT4_GOING_FLAGS_NOLOGFLUSH = 2


class Container:
    """Mounts its disk in a mount namespace of this process, so that a container that
    starts at the same time does not hold on to the disk.
    """

    def __init__(self, image: Path, payload: Path, work: Path, console: BinaryIO) -> None:
        """`work` holds the disk, a copy of `image` with the files of `payload`. Where
        it holds one already, that one is used. What the machine prints goes to
        `console`.
        """
        self.image = image
        self.payload = payload
        self.disk = work / "disk"
        self.root = work / "root"
        self.console = console
        self.cgroup = cgroup_root() / f"docker-stack-backup-vm-{os.getpid()}"
        self.nspawn: subprocess.Popen[bytes] | None = None
        self.first = 0
        self.root.mkdir(exist_ok=True)

    def __enter__(self) -> Container:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNS) != 0:
            raise OSError(ctypes.get_errno(), "no mount namespace of its own")
        subprocess.run(["mount", "--make-rprivate", "/"], check=True)
        self.cgroup.mkdir()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.is_running():
            self._kill()
            self.wait_for_end()
        for path in sorted(self.cgroup.glob("**/"), reverse=True):
            path.rmdir()

    def is_running(self) -> bool:
        return self.nspawn is not None

    def _insert_disk(self) -> None:
        is_new = not self.disk.exists()
        if is_new:
            copy = ["cp", "--reflink=auto", "--sparse=always"]
            subprocess.run([*copy, self.image, self.disk], check=True)
        subprocess.run(["mount", "-o", "loop", self.disk, self.root], check=True)
        if is_new:
            # What the machine would have been built with.
            subprocess.run(["cp", "-a", f"{self.payload}/.", self.root], check=True)

    def boot(self) -> None:
        """Returns when the first process runs; the boot goes on."""
        self._insert_disk()
        self.nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--boot", "--directory", self.root, "--machine=machine"),
                # No systemd of the host is asked; it may have none.
                *("--register=no", "--keep-unit", "--console=pipe"),
                # What Docker needs; its bridges are in a network of the container's own.
                *("--private-network", "--system-call-filter=add_key keyctl bpf"),
                *("--bind=/dev/loop-control", "--bind=/dev/fuse"),
            ],
            env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self.console,
            stderr=self.console,
            preexec_fn=self._join_cgroup,
        )
        self.first = self._wait_for_first_process()
        for number in range(64):
            self.run(["mknod", f"/dev/loop{number}", "b", "7", str(number)])

    def _join_cgroup(self) -> None:
        (self.cgroup / "cgroup.procs").write_text("0")

    def _wait_for_first_process(self) -> int:
        assert self.nspawn is not None
        children = Path(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children")
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.nspawn.poll() is None and time.monotonic() < deadline:
            for child in children.read_text().split():
                if name_of(child) == "systemd":
                    return int(child)
            time.sleep(0.02)
        raise RuntimeError("the container does not start; the console says why")

    def _inside(self, command: list[str]) -> list[str]:
        return [
            *("nsenter", f"--target={self.first}", "--mount", "--uts", "--ipc", "--net", "--pid"),
            *("--cgroup", "--root", "--wdns=/root", *command),
        ]

    def run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Returns the command's stdout; its stderr goes to the console."""
        return subprocess.run(
            self._inside(command),
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.console,
            text=True,
            errors="replace",
        )

    def serve_shell(self, connection: socket.socket) -> None:
        """Starts a shell that reads its commands from `connection`."""
        subprocess.Popen(
            self._inside(["bash", "--norc"]),
            env=ENVIRONMENT,
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            stderr=self.console,
        )

    def wait_for_end(self) -> None:
        assert self.nspawn is not None
        self.nspawn.wait(LIMIT_SECONDS)
        self.nspawn = None
        self.first = 0
        self._remove_disk()

    def cut_power(self) -> None:
        """The file system stops first: nothing reaches the disk any more, and what
        is in its journal only in memory is lost.
        """
        root = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.ioctl(root, EXT4_IOC_SHUTDOWN, struct.pack("I", EXT4_GOING_FLAGS_NOLOGFLUSH))
        os.close(root)
        self._kill()
        self.wait_for_end()

    def _kill(self) -> None:
        """All its processes end with the first one. (`cgroup.kill` would also kill what
        systemd starts in the same cgroups after the next boot.)
        """
        assert self.nspawn is not None
        if self.first != 0:
            os.kill(self.first, signal.SIGKILL)
        else:
            self.nspawn.kill()

    def _remove_disk(self) -> None:
        """Mounted again while a mount of before is left, its content would be torn."""
        subprocess.run(["umount", self.root], check=True)
        deadline = time.monotonic() + LIMIT_SECONDS
        while is_loop_device(self.disk):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.disk} is still in use")
            time.sleep(0.05)


def cgroup_root() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, path, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(path)
    raise RuntimeError("no cgroup v2 is mounted")


def name_of(process: str) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def is_loop_device(disk: Path) -> bool:
    done = subprocess.run(["losetup", "-j", disk], check=True, stdout=subprocess.PIPE)
    return done.stdout != b""
