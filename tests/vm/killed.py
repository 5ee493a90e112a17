# A run that is killed, or ended, while a stack is down and its hooks are in effect.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed("install -d -o nobody /srv/stacks/web/hooked")
machine.succeed("dd if=/dev/zero of=/srv/stacks/web/big bs=1M count=400 status=none")
up = "test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = 'db-db-1 web-cache-1 web-web-1'"
down = "test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = db-db-1"
awake = "systemd-inhibit --list | grep docker-stack-backup"
# One hook has run on the host, as nobody, and one in the container.
in_effect = [
    "test -e /srv/stacks/web/hooked/flag",
    "docker cp web-web-1:/tmp/flag - >/dev/null",
]
unit = "docker-stack-backup.service"
# Held there, so that there is time to look.
in_the_middle = (
    "until ls /srv/backup/web/*.partial 2>/dev/null; do sleep 0.05; done;"
    f" systemctl kill --kill-whom=all --signal=STOP {unit}"
)


def undone() -> None:
    for look in in_effect:
        machine.wait_until_succeeds(f"! {look}")


def end_in_the_middle(how: str) -> None:
    machine.succeed(up)
    undone()
    # A recovery ends with the removal of what is unfinished.
    machine.wait_until_succeeds("! ls /srv/backup/web/*.partial")
    machine.succeed(f"systemctl start --no-block {unit}")
    machine.succeed(in_the_middle, timeout=300)
    machine.succeed(down, *in_effect)
    machine.succeed(awake)
    machine.fail("ls /srv/backup/web/*.tar")
    machine.succeed(how)
    machine.wait_until_succeeds(f"! {awake}")


with subtest("after SIGKILL, ExecStopPost starts the stack"):
    end_in_the_middle(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    assert machine.get_unit_property(unit, "Result") == "signal"
    machine.succeed(up)
    undone()
    machine.fail("ls /srv/backup/web/*.tar")
    machine.fail("ls /var/lib/docker-stack-backup/journal/*")

with subtest("the next run is good and leaves nothing unfinished"):
    machine.succeed(f"systemctl start {unit}", up)
    machine.succeed("ls /srv/backup/web/*.tar")
    machine.fail("ls /srv/backup/web/*.partial")
    undone()
    # It was made with both in effect; what one wrote in its container is in no volume.
    machine.succeed("tar -tf /srv/backup/web/web_*.tar web/hooked/flag")

with subtest("a hook on the host may write to the stack, and not elsewhere"):
    machine.fail("test -e /etc/flag")
    journal = machine.succeed(f"journalctl --no-pager -u {unit}")
    assert "Read-only file system" in journal, journal

with subtest("systemctl stop waits until the stack is up"):
    machine.succeed("rm /srv/backup/web/*")
    end_in_the_middle(f"systemctl stop {unit}")
    machine.succeed(up)
    undone()
    machine.fail("ls /srv/backup/web/*.tar")

with subtest("where ExecStopPost is killed, too, the recover unit starts it"):
    machine.succeed(
        f"mkdir -p /run/systemd/system/{unit}.d",
        f"printf '[Service]\\nExecStopPost=\\n' >/run/systemd/system/{unit}.d/none.conf",
        "systemctl daemon-reload",
    )
    end_in_the_middle(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(up)
    undone()

with subtest("the control: without both, it stays down"):
    machine.succeed(
        "mkdir -p /run/systemd/system/docker-stack-backup-recover.service.d",
        "printf '[Unit]\\nConditionPathExists=/nowhere\\n'"
        " >/run/systemd/system/docker-stack-backup-recover.service.d/never.conf",
        "systemctl daemon-reload",
    )
    end_in_the_middle(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.sleep(5)
    machine.succeed(down, *in_effect)
    # By hand, as an administrator would.
    machine.succeed("docker-stack-backup recover", up)
    undone()
