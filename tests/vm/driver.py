"""Runs a scenario on a Debian machine, with the methods of the NixOS test driver.

    driver.py --disk IMAGE --payload DIR SCENARIO.py

The scenario sees what it would see under NixOS: `machine`, `start_all`,
`subtest`, `retry` and so on. What the methods mean is described in the NixOS
manual, "Writing Tests"; where it matters, the comments here say so again.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from container import Container

DEFAULT_TIMEOUT_SECONDS = 900
BOOT_SECONDS = 120


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
    """A Debian machine in a container, with a disk of its own."""

    def __init__(self, container: Container) -> None:
        self.name = "machine"
        self.container = container

    # ---- its life

    def start(self, allow_reboot: bool = False) -> None:
        del allow_reboot
        if self.container.is_running():
            return
        with log.nested("booting the machine"):
            self.container.boot()
            # What has failed is for the scenario to see.
            self.wait_until_succeeds(
                "[[ $(systemctl is-system-running) =~ ^(running|degraded)$ ]]", BOOT_SECONDS
            )

    def shutdown(self) -> None:
        """An orderly end."""
        if self.container.is_running():
            self.execute("systemctl poweroff")
            self.container.wait_for_end()

    def crash(self) -> None:
        """A power cut: what was written to the disk is there, what was held in
        memory is lost.
        """
        log("power cut")
        self.container.cut_power()

    def reboot(self) -> None:
        self.shutdown()
        self.start()

    # ---- commands

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
        # Under NixOS, the next command would read what this one prints.
        assert check_output, "not the same under NixOS"
        self.start()
        limit = [] if timeout is None else ["timeout", str(timeout)]
        done = self.container.run([*limit, "bash", "-c", f"set -euo pipefail; {command}"])
        return (done.returncode if check_return else -1, done.stdout)

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
        self.wait_until_succeeds(f"nc -z {addr} {port}", timeout)

    def wait_for_closed_port(
        self, port: int, addr: str = "localhost", timeout: int = DEFAULT_TIMEOUT_SECONDS
    ) -> None:
        self.wait_until_fails(f"nc -z {addr} {port}", timeout)

    def sleep(self, secs: int) -> None:
        """Of the machine's time."""
        self.succeed(f"sleep {secs}")

    def log(self, msg: str) -> None:
        log(msg)

    @contextmanager
    def nested(self, msg: str) -> Iterator[None]:
        with log.nested(msg):
            yield


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


def tell_why(machine: Machine, console: Path) -> None:
    """Prints what a reader of a failure asks for next."""
    units = "-u 'docker-stack-backup*' -u 'opensmtpd*' -u 'borgbackup*'"
    if machine.container.is_running():
        log("the last of the journal, and Docker:")
        log(machine.execute(f"journalctl --no-pager -b -n 200 {units}; docker ps -a", timeout=60)[1])
    log("the last of the console, and what the commands wrote to stderr:")
    log("\n".join(console.read_text(errors="replace").splitlines()[-40:]))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--disk", type=Path, required=True, help="image of which a copy is used")
    parser.add_argument("--payload", type=Path, required=True, help="files of the scenario")
    parser.add_argument("scenario", type=Path)
    args = parser.parse_args()
    # So that the container ends, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="dsb-vm-") as work:
        console = Path(work, "console")
        with (
            console.open("ab") as output,
            Container(args.disk, args.payload, Path(work), output) as container,
        ):
            machine = Machine(container)
            try:
                run_scenario(args.scenario, machine)
                return 0
            except Exception:
                log(traceback.format_exc())
                tell_why(machine, console)
                return 1


if __name__ == "__main__":
    sys.exit(main())
