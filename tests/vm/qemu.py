"""Starts QEMU, and freezes and resumes what runs in it.

A frozen machine goes on only in one that is alike: it is made again when this
file changes (see scripts/test-vm).
"""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

# Either may be a command with arguments.
QEMU = shlex.split(os.environ.get("QEMU", "qemu-system-x86_64"))
QEMU_IMG = shlex.split(os.environ.get("QEMU_IMG", "qemu-img"))
# Emulated and on a busy host, a boot may take minutes.
BOOT_SECONDS = 600


class QemuError(Exception):
    """QEMU has ended, or does not do what it is told."""


def command(prepared: Path, disk: Path, payload: Path, work: Path) -> list[str]:
    return [
        *QEMU,
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
        *("-m", "2048", "-nodefaults", "-nographic", "-no-reboot", "-no-user-config"),
        *("-kernel", str(prepared / "vmlinuz"), "-initrd", str(prepared / "initrd")),
        "-append",
        "root=/dev/vda rw console=ttyS0 panic=-1 quiet init=/usr/local/sbin/driver-init",
        *("-drive", f"file={disk},if=virtio,format=qcow2,cache=writeback,discard=unmap"),
        *("-drive", f"file={payload},if=virtio,format=raw,readonly=on"),
        *("-chardev", f"socket,id=shell,path={work / 'shell'},server=on,wait=off"),
        *("-device", "virtio-serial-pci", "-device", "virtconsole,chardev=shell"),
        *("-serial", f"file:{work / 'console'}"),
        *("-qmp", f"unix:{work / 'qmp'},server=on,wait=off"),
        *("-device", "virtio-rng-pci"),
    ]


def connect(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """To a socket that QEMU is about to make."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            if process.poll() is not None:
                raise QemuError(f"QEMU has ended with {process.returncode}") from None
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextmanager
def monitor(work: Path, process: subprocess.Popen[bytes]) -> Iterator[TextIO]:
    """QEMU's own, for `ask`."""
    qmp = connect(work / "qmp", process)
    with qmp, qmp.makefile("rw") as stream:
        stream.readline()
        ask(stream, "qmp_capabilities")
        yield stream


def ask(stream: TextIO, command: str, **arguments: str) -> dict[str, Any]:
    stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
    stream.flush()
    while True:
        answer = json.loads(stream.readline())
        if "error" in answer:
            raise QemuError(f"QEMU refuses {command}: {answer['error']['desc']}")
        if "return" in answer:
            return dict(answer["return"])


def freeze(work: Path, process: subprocess.Popen[bytes], state: Path) -> None:
    """Writes the machine's memory to `state` and ends QEMU; its disk goes with it."""
    with monitor(work, process) as stream:
        ask(stream, "stop")
        ask(stream, "migrate", uri=f"file:{state}")
        wait_for_migration(stream)
        ask(stream, "quit")
    process.wait()


def resume(work: Path, process: subprocess.Popen[bytes]) -> None:
    """Lets a machine go on that was started with `-incoming`."""
    with monitor(work, process) as stream:
        wait_for_migration(stream)
        ask(stream, "cont")


def wait_for_migration(stream: TextIO) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while (status := ask(stream, "query-migrate").get("status")) != "completed":
        if status == "failed" or time.monotonic() > deadline:
            raise QemuError(f"the machine's state cannot be moved: {status}")
        time.sleep(0.2)
