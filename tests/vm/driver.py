"""Runs a scenario on a Debian machine, with the methods of the NixOS test driver.

    driver.py --machine DIR --payload TAR [SCENARIO.py]

The scenario sees what it would see under NixOS: `machine`, `start_all`,
`subtest`, `retry` and so on. What the methods mean is described in the NixOS
manual, "Writing Tests"; where it matters, the comments here say so again.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import qemu

SHELL_READY = b"driver shell ready"
DEFAULT_TIMEOUT_SECONDS = 900


class RequestFailed(Exception):
    """What was asked of the machine did not come about."""


class Log:
    """What happens, indented by subtest, with the seconds since the start."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.depth = 0

    def __call__(self, text: str) -> None:
        seconds = time.monotonic() - self.began
        for line in text.rstrip().splitlines() or [""]:
            print(f"[{seconds:6.1f}] {'  ' * self.depth}{line}", flush=True)

    @contextmanager
    def nested(self, text: str) -> Iterator[None]:
        self(text)
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1


log = Log()


def retry(fn: Callable[[bool], bool], timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS) -> None:
    """Calls `fn` once a second until it returns true; once more, with `True`, at
    the end, so that it can say why not.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if fn(False):
            return
        time.sleep(1)
    if not fn(True):
        raise RequestFailed(f"action timed out after {timeout_seconds} seconds")


class Machine:
    """A virtual machine.

    Its disk is an overlay of the prepared machine's. The first start goes on from
    where that was frozen, its stacks running; a later start boots from the disk.
    """

    def __init__(self, prepared: Path, payload: Path, work: Path) -> None:
        self.name = "machine"
        self.prepared = prepared
        self.payload = payload
        self.work = work
        self.console = work / "console"
        self.disk = work / "disk.qcow2"
        self.process: subprocess.Popen[bytes] | None = None
        self.shell: socket.socket | None = None
        self.received = b""

    # ---- its life

    def start(self, allow_reboot: bool = False) -> None:
        del allow_reboot
        if self.process is not None:
            return
        resumes = not self.disk.exists()
        if resumes:
            self._make_disk()
        with log.nested("resuming the machine" if resumes else "booting the machine"):
            self._launch(resumes)
            self._connect(resumes)
            if resumes:
                self._catch_up()

    def _make_disk(self) -> None:
        subprocess.run(
            [*qemu.QEMU_IMG, "create", "-q", "-f", "qcow2", "-F", "qcow2"]
            + ["-b", self.prepared / "disk.qcow2", self.disk],
            check=True,
        )

    def _launch(self, resumes: bool) -> None:
        command = qemu.command(self.prepared, self.disk, self.payload, self.work)
        if resumes:
            command += ["-incoming", f"file:{self.prepared / 'state'}"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
        if resumes:
            qemu.resume(self.work, self.process)

    def _connect(self, resumes: bool) -> None:
        assert self.process is not None
        self.shell = qemu.connect(self.work / "shell", self.process)
        self.shell.settimeout(qemu.BOOT_SECONDS)
        self.received = b""
        if resumes:
            # It said so before it was frozen.
            self.shell.sendall(b"\necho " + SHELL_READY + b"\n")
        self._read_until(SHELL_READY)
        self._read_line()

    def _catch_up(self) -> None:
        """What the machine would have been built with, and today's time."""
        self.succeed(
            f"date -s @{int(time.time())}",
            # Nothing of the disk that was there when it was frozen.
            "blockdev --flushbufs /dev/vdb",
            "tar -xf /dev/vdb -C /",
            "touch /var/lib/driver-payload",
            "systemctl daemon-reload",
            # As a boot would have: what the timers and the boot want.
            "systemd-tmpfiles --create",
            "systemctl start timers.target multi-user.target",
        )

    def shutdown(self) -> None:
        """An orderly end."""
        if self.process is None:
            return
        assert self.shell is not None
        self.shell.sendall(b"poweroff\n")
        self.process.wait(qemu.BOOT_SECONDS)
        self._gone()

    def crash(self) -> None:
        """A power cut: what the guest has written to its disk is there, what it
        held in memory is lost.
        """
        log("power cut")
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._gone()

    def reboot(self) -> None:
        self.shutdown()
        self.start()

    def _gone(self) -> None:
        if self.shell is not None:
            self.shell.close()
        self.process = self.shell = None

    # ---- commands

    def _receive(self) -> None:
        assert self.shell is not None
        chunk = self.shell.recv(65536)
        if not chunk:
            raise RequestFailed("the machine's shell has ended")
        self.received += chunk

    def _read_until(self, mark: bytes) -> None:
        while mark not in self.received:
            self._receive()
        self.received = self.received.partition(mark)[2]

    def _read_line(self) -> bytes:
        while b"\n" not in self.received:
            self._receive()
        line, _, self.received = self.received.partition(b"\n")
        return line.strip()

    def execute(
        self,
        command: str,
        check_return: bool = True,
        check_output: bool = True,
        timeout: int | None = DEFAULT_TIMEOUT_SECONDS,
    ) -> tuple[int, str]:
        """Status and stdout. The command runs with `set -euo pipefail`. What it
        leaves in the background must not hold its stdout.
        """
        # There, the next command would read what this one prints.
        assert check_output, "not the same under NixOS"
        self.start()
        assert self.shell is not None
        limit = f"timeout {timeout} " if timeout is not None else ""
        script = shlex.quote(f"set -euo pipefail; {command}")
        self.shell.settimeout(None if timeout is None else timeout + qemu.BOOT_SECONDS)
        self.shell.sendall(
            f"{limit}bash -c {script} </dev/null | (base64 -w 0; echo); "
            "echo ${PIPESTATUS[0]}\n".encode()
        )
        output = base64.b64decode(self._read_line()).decode(errors="replace")
        status = int(self._read_line())
        return (status if check_return else -1, output)

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            with log.nested(f"must succeed: {command}"):
                status, out = self.execute(command, timeout=timeout)
                if status != 0:
                    log(f"output: {out}")
                    raise RequestFailed(f"command `{command}` failed (exit code {status})")
                output += out
        return output

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        output = ""
        for command in commands:
            with log.nested(f"must fail: {command}"):
                status, out = self.execute(command, timeout=timeout)
                if status == 0:
                    log(f"output: {out}")
                    raise RequestFailed(f"command `{command}` unexpectedly succeeded")
                output += out
        return output

    def wait_until_succeeds(self, command: str, timeout: int = DEFAULT_TIMEOUT_SECONDS) -> str:
        return self._wait_for_status(command, lambda status: status == 0, "success", timeout)

    def wait_until_fails(self, command: str, timeout: int = DEFAULT_TIMEOUT_SECONDS) -> str:
        return self._wait_for_status(command, lambda status: status != 0, "failure", timeout)

    def _wait_for_status(
        self, command: str, is_good: Callable[[int], bool], what: str, timeout: int
    ) -> str:
        output = ""

        def attempt(is_last: bool) -> bool:
            nonlocal output
            status, output = self.execute(command, timeout=timeout)
            if is_last and not is_good(status):
                log(f"last output: {output}")
            return is_good(status)

        with log.nested(f"waiting for {what}: {command}"):
            retry(attempt, timeout)
        return output

    # ---- systemd

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        assert user is None, "user units are not used here"
        return self.execute(f"systemctl {q}")

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        status, output = self.systemctl(f'--no-pager show "{unit}"', user)
        if status != 0:
            raise RequestFailed(f"unit {unit} cannot be shown (exit code {status})")
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        return self.get_unit_info(unit, user)[property]

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        state = self.get_unit_property(unit, "ActiveState")
        if state != require_state:
            raise RequestFailed(f"unit {unit} is {state}, not {require_state}")

    def wait_for_unit(
        self, unit: str, user: str | None = None, timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        """Until it is active. Raises at once where that cannot be: it has failed,
        or it is inactive and no job is to start it.
        """

        def is_active(is_last: bool) -> bool:
            info = self.get_unit_info(unit, user)
            state = info["ActiveState"]
            if state == "failed":
                raise RequestFailed(f"unit {unit} has failed")
            if state == "inactive":
                _, jobs = self.systemctl("list-jobs --full", user)
                if "No jobs" in jobs:
                    info = self.get_unit_info(unit, user)
                    if info["ActiveState"] == state:
                        raise RequestFailed(f"unit {unit} is inactive and there are no pending jobs")
            return state == "active"

        with log.nested(f"waiting for unit {unit}"):
            retry(is_active, timeout)

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        return self.systemctl(f"stop {jobname}", user)

    # ---- the rest

    def wait_for_file(self, filename: str, timeout: int = DEFAULT_TIMEOUT_SECONDS) -> None:
        self.wait_until_succeeds(f"test -e {shlex.quote(filename)}", timeout)

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self.wait_until_succeeds(f"true </dev/tcp/{addr}/{port}", timeout)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self.wait_until_fails(f"true </dev/tcp/{addr}/{port}", timeout)

    def wait_for_console_text(self, regex: str, timeout: int | None = None) -> None:
        def matches(is_last: bool) -> bool:
            return re.search(regex, self.console.read_text(errors="replace")) is not None

        with log.nested(f"waiting for console text: {regex}"):
            retry(matches, timeout or DEFAULT_TIMEOUT_SECONDS)

    def copy_from_host(self, source: str, target: str) -> None:
        """A file or a directory."""
        tar = subprocess.run(
            ["tar", "-C", str(Path(source).parent), "-cf", "-", Path(source).name],
            check=True,
            stdout=subprocess.PIPE,
        ).stdout
        into = shlex.quote(target)
        self.succeed(
            'rm -rf /tmp/from-host; mkdir /tmp/from-host; mkdir -p "$(dirname ' + into + ')"',
        )
        encoded = base64.b64encode(tar).decode()
        # A line of a shell on a console may not be of any length.
        for i in range(0, len(encoded), 32768):
            self.succeed(f"printf %s {encoded[i : i + 32768]} >>/tmp/from-host/tar")
        name = shlex.quote(Path(source).name)
        self.succeed(
            "base64 -d /tmp/from-host/tar | tar -C /tmp/from-host -xf -",
            f"cp -r /tmp/from-host/{name} {into}",
        )

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        into = Path(os.environ.get("out", ".")) / target_dir
        into.mkdir(parents=True, exist_ok=True)
        name = shlex.quote(Path(source).name)
        parent = shlex.quote(str(Path(source).parent))
        encoded = self.succeed(f"tar -C {parent} -cf - {name} | base64 -w 0")
        subprocess.run(["tar", "-C", into, "-xf", "-"], check=True, input=base64.b64decode(encoded))

    def sleep(self, secs: int) -> None:
        """Of the machine's time."""
        self.succeed(f"sleep {secs}")

    def log(self, msg: str) -> None:
        log(msg)

    @contextmanager
    def nested(self, msg: str) -> Iterator[None]:
        with log.nested(msg):
            yield


def prepare(machine: Machine) -> None:
    """Boots, brings the machine to where scenarios begin, and freezes it: its
    memory goes into a file beside its disk.
    """
    machine.disk = machine.prepared / "disk.qcow2"
    machine.start()
    machine.succeed("/etc/dsb-test/prepare", "sync")
    with log.nested("freezing the machine"):
        assert machine.process is not None
        qemu.freeze(machine.work, machine.process, machine.prepared / "state")
    machine.process = None


@contextmanager
def subtest(name: str) -> Iterator[None]:
    with log.nested(f"subtest: {name}"):
        yield


def run_scenario(script: Path, machine: Machine) -> None:
    names: dict[str, Any] = {
        "machine": machine,
        "machines": [machine],
        "start_all": machine.start,
        "join_all": lambda: None,
        "subtest": subtest,
        "retry": retry,
    }
    exec(compile(script.read_text(), script, "exec"), names)


def tell_why(machine: Machine) -> None:
    """What a reader of a failure asks for next."""
    units = "-u 'docker-stack-backup*' -u 'opensmtpd*' -u 'borgbackup*'"
    try:
        if machine.process is not None:
            log("the last of the journal, and Docker:")
            log(machine.execute(f"journalctl --no-pager -b -n 200 {units}; docker ps -a", timeout=60)[1])
    except (RequestFailed, qemu.QemuError, OSError, ValueError) as error:
        log(f"the machine does not answer: {error}")
    if machine.console.exists():
        log("the last of the console, and what the commands wrote to stderr:")
        log("\n".join(machine.console.read_text(errors="replace").splitlines()[-40:]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--machine", type=Path, required=True, help="directory of the prepared one")
    parser.add_argument("--payload", type=Path, required=True, help="tar for the scenario")
    parser.add_argument("scenario", type=Path, nargs="?", help="none: prepares the machine")
    args = parser.parse_args()
    # So that QEMU ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="dsb-vm-") as work:
        machine = Machine(args.machine, args.payload, Path(work))
        try:
            if args.scenario is None:
                prepare(machine)
            else:
                run_scenario(args.scenario, machine)
            return 0
        except Exception:
            log(traceback.format_exc())
            tell_why(machine)
            return 1
        finally:
            if machine.process is not None:
                machine.process.kill()
                machine.process.wait()


if __name__ == "__main__":
    sys.exit(main())
