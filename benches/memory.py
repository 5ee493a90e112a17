"""How much memory a command takes."""

import pathlib
import subprocess
import threading
import time


class PeakMemory:
    """The largest resident set of a process so far, as the kernel keeps it."""

    def __init__(self, pid):
        self.pid = pid
        self.kib = 0

    def watch(self, process):
        def sample():
            while process.poll() is None:
                try:
                    status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
                except OSError:
                    return
                for line in status.splitlines():
                    if line.startswith("VmHWM:"):
                        self.kib = max(self.kib, int(line.split()[1]))
                time.sleep(0.005)

        thread = threading.Thread(target=sample)
        thread.start()
        return thread


def watched(*command, cwd=None):
    """Runs a command; returns the peak memory of its own process in MiB."""
    process = subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    peak = PeakMemory(process.pid)
    thread = peak.watch(process)
    errors = process.communicate()[1]
    thread.join()
    if process.returncode != 0:
        raise SystemExit(f"{command}: {process.returncode}\n{errors}")
    return peak.kib / 1024
