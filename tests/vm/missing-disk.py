# The power fails during a run, and a disk does not come up again: the stacks on the
# other one do, their backups go on, and a mail names what is missing.
start_all()
machine.succeed("/etc/dsb-test/prepare")
run = "docker-stack-backup.service"
second = "docker-stack-backup-run-second.service"
machine.succeed(
    "truncate -s 200M /srv/disk.img",
    "mkfs.ext4 -q /srv/disk.img",
    "systemctl reset-failed",
    "systemctl start srv-disk.mount",
    # The store, as at a boot with the disk.
    "systemd-tmpfiles --create 10-docker-stack-backup.conf",
    "cp -r /srv/stacks/web /srv/disk/files",
    "cp -r /srv/stacks/web /srv/stacks/other",
    "docker compose --project-directory /srv/disk/files up --detach --wait",
    "docker compose --project-directory /srv/stacks/other up --detach --wait",
    "dd if=/dev/zero of=/srv/stacks/web/big bs=1M count=200 status=none",
)
web = "docker ps --quiet --filter name=^web- | wc -l"


def mails() -> str:
    return machine.succeed("cat /home/admin/Maildir/new/* 2>/dev/null || true")


with subtest("the control: with the disk, all is backed up"):
    machine.succeed(f"systemctl start {run} {second}")
    machine.succeed("ls /srv/backup/files/*.tar", "ls /srv/disk/backup/other/*.tar")

with subtest("recovery goes on without the disk"):
    machine.succeed("rm /srv/backup/web/*.tar", f"systemctl start --no-block {run}")
    machine.succeed(
        "until ls /srv/backup/web/*.partial 2>/dev/null; do sleep 0.05; done;"
        f" systemctl kill --kill-whom=all --signal=STOP {run}",
        timeout=300,
    )
    assert machine.succeed(web).strip() == "0"
    machine.succeed("mv /srv/disk.img /srv/not-there.img", "sync")
    machine.crash()
    machine.start()
    machine.wait_until_succeeds(f"test \"$({web})\" = 2")
    recovered = machine.succeed("journalctl -b --no-pager -u docker-stack-backup-recover.service")
    assert "web: left stopped, starting it" in recovered, recovered
    machine.fail("mountpoint -q /srv/disk")

with subtest("the other stacks are backed up, and a mail names the one that is missing"):
    machine.succeed("/etc/dsb-test/prepare", "rm -f /home/admin/Maildir/new/*", "rm /srv/backup/db/*.tar")
    machine.fail(f"systemctl start {run}")
    machine.succeed("ls /srv/backup/web/*.tar", "ls /srv/backup/db/*.tar")
    machine.wait_until_succeeds("grep -l 'files not backed up' /home/admin/Maildir/new/*")

with subtest("a job whose store is missing stops nothing and fills no other disk"):
    started = "docker inspect --format '{{.State.StartedAt}}' other-web-1"
    before = machine.succeed(started)
    machine.succeed("rm -f /home/admin/Maildir/new/*")
    machine.fail(f"systemctl start {second}")
    assert machine.succeed(started) == before
    machine.fail("ls /srv/disk/backup/other")
    machine.wait_until_succeeds("grep -l '^Subject: .*FAIL' /home/admin/Maildir/new/*")
    assert "/srv/disk/backup" in mails(), mails()

with subtest("with the disk again, all is good"):
    machine.succeed(
        "mv /srv/not-there.img /srv/disk.img",
        "systemctl reset-failed",
        "systemctl start srv-disk.mount",
        "docker compose --project-directory /srv/disk/files up --detach --force-recreate --wait",
        f"systemctl start {run} {second}",
    )
