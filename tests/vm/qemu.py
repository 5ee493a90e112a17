"""Stands in for QEMU, so that the NixOS test driver itself runs a scenario on the
Debian machine, unmodified.

    qemu.py --disk IMAGE --payload DIR OPTION...

The driver gives a machine's start script QEMU's options. Three of them name sockets:
`-monitor`, to which QEMU connects and where the driver types commands; `-chardev`, to
which QEMU connects and where the driver expects a shell of the machine; and `-qmp`,
where QEMU listens. What the machine's console prints goes to stdout. The working
directory holds the machine's disk from one boot to the next. All this is as in
nixpkgs, `nixos/lib/test-driver` and `nixos/modules/testing/test-instrumentation.nix`.
"""

from __future__ import annotations

import argparse
import enum
import json
import queue
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from container import Container

PROMPT = b"(qemu) "
# The driver waits for these words before it sends a command.
SHELL_IS_READY = b"Spawning backdoor root shell...\n"
BOOT_SECONDS = 120


class Event(enum.Enum):
    POWER_CUT = enum.auto()
    DRIVER_GONE = enum.auto()
    SHUT_DOWN = enum.auto()


def path_of(option: str) -> str:
    """Returns the path in `unix:PATH,server=on` or `socket,id=shell,path=PATH`."""
    for part in option.split(","):
        for prefix in ("unix:", "path="):
            if part.startswith(prefix):
                return part.removeprefix(prefix)
    raise ValueError(f"no path in {option}")


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(path)
    return connection


def answer_monitor(connection: socket.socket, events: queue.Queue[Event]) -> None:
    """Knows one command, `quit`, by which the driver cuts the power."""
    connection.sendall(PROMPT)
    for line in connection.makefile("r"):
        if line.strip() == "quit":
            events.put(Event.POWER_CUT)
            return
        connection.sendall(f"unknown command: {line}".encode() + PROMPT)
    events.put(Event.DRIVER_GONE)


def answer_qmp(listener: socket.socket) -> None:
    """Accepts every command and does nothing: the scenarios need none."""
    connection, _ = listener.accept()
    messages = connection.makefile("rw")
    version = {"qemu": {"major": 0, "minor": 0, "micro": 0}, "package": ""}
    print(json.dumps({"QMP": {"version": version, "capabilities": []}}), file=messages, flush=True)
    for _ in messages:
        print(json.dumps({"return": {}}), file=messages, flush=True)


def wait_for_end(container: Container, events: queue.Queue[Event]) -> None:
    assert container.nspawn is not None
    container.nspawn.wait()
    events.put(Event.SHUT_DOWN)


def wait_for_basic_target(container: Container) -> None:
    """On NixOS, the driver's shell is a service that starts after this target."""
    deadline = time.monotonic() + BOOT_SECONDS
    while container.run(["systemctl", "is-active", "--quiet", "basic.target"]).returncode != 0:
        if time.monotonic() > deadline:
            raise RuntimeError(f"the machine has not booted after {BOOT_SECONDS} s")
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--disk", type=Path, required=True)
    parser.add_argument("--payload", type=Path, required=True)
    for option in ("-monitor", "-chardev", "-qmp"):
        parser.add_argument(option, type=path_of, required=True)
    # The others describe virtual hardware.
    args, _ = parser.parse_known_args()
    # So that the container ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    events: queue.Queue[Event] = queue.Queue()

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    Path(args.qmp).unlink(missing_ok=True)
    listener.bind(args.qmp)
    listener.listen(1)
    monitor = connect(args.monitor)
    shell = connect(args.chardev)
    threading.Thread(target=answer_monitor, args=(monitor, events), daemon=True).start()
    threading.Thread(target=answer_qmp, args=(listener,), daemon=True).start()

    with Container(args.disk, args.payload, Path.cwd(), sys.stdout.buffer) as container:
        container.boot()
        threading.Thread(target=wait_for_end, args=(container, events), daemon=True).start()
        wait_for_basic_target(container)
        shell.sendall(SHELL_IS_READY)
        container.serve_shell(shell)
        match events.get():
            case Event.POWER_CUT:
                container.cut_power()
            case Event.SHUT_DOWN:
                container.wait_for_end()
            case Event.DRIVER_GONE:
                # Leaving the block kills the machine.
                pass


if __name__ == "__main__":
    main()
