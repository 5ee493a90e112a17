"""Fresh file systems on loop devices, for benchmarks that tell them apart."""

import contextlib
import pathlib
import subprocess
import tempfile

MKFS = {
    "ext4": ["mkfs.ext4", "-q", "-m", "0"],
    "xfs": ["mkfs.xfs", "-q", "-m", "reflink=1"],
    "btrfs": ["mkfs.btrfs", "-q"],
}


@contextlib.contextmanager
def mounted(kind, gib, parent=None):
    """A directory on a fresh file system of this kind, whose sparse image lies
    in `parent`. "host" is a directory there itself."""
    with tempfile.TemporaryDirectory(prefix="dsbbench-", dir=parent) as place:
        place = pathlib.Path(place)
        if kind == "host":
            yield place
            return
        image, root = place / "image", place / "root"
        root.mkdir()
        with open(image, "wb") as file:
            file.truncate(gib << 30)
        subprocess.run([*MKFS[kind], image], check=True)
        # Direct, or every block would be cached twice.
        device = subprocess.run(
            ["losetup", "--find", "--show", "--direct-io=on", image],
            check=True, capture_output=True, text=True,
        ).stdout.strip()  # fmt: skip
        try:
            subprocess.run(["mount", device, root], check=True)
            try:
                yield root
            finally:
                subprocess.run(["umount", root], check=True)
        finally:
            subprocess.run(["losetup", "--detach", device], check=True)
