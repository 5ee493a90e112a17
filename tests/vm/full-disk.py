# The store's file system has no room: before the stop, and in the middle.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed(
    "truncate -s 120M /srv/small.img",
    "mkfs.ext4 -q /srv/small.img",
    "mount -o loop /srv/small.img /srv/small",
    "mkdir -p /srv/small/backup",
    "systemctl start docker-stack-backup.service",
)
first = machine.succeed("cd /srv/small/backup/web; ls *.tar*").split()
assert len(first) == 1, first
started = "docker inspect --format '{{.State.StartedAt}}' web-web-1"
up = "test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = 'db-db-1 web-cache-1 web-web-1'"

with subtest("what cannot fit is refused before anything is stopped"):
    machine.succeed("dd if=/dev/zero of=/srv/stacks/web/big bs=1M count=150 status=none")
    before = machine.succeed(started)
    machine.fail("systemctl start docker-stack-backup.service")
    assert machine.succeed(started) == before
    mail = machine.wait_until_succeeds("grep -rh -A1 '^Subject: .*FAILURE' /home/admin/Maildir/new")
    assert "web not backed up" in mail, mail

with subtest("a disk that fills while the stack is down does not keep it down"):
    machine.succeed(
        "dd if=/dev/zero of=/srv/stacks/web/big bs=1M count=60 status=none",
        # It stops after `web`, and slowly, so that there is time to fill the disk.
        "echo 'services: {cache: {command: [sh, -c, \"trap \\\"sleep 2; exit\\\" TERM; sleep infinity & wait\"]}}'"
        " >/srv/stacks/web/compose.override.yaml",
        "docker compose --project-directory /srv/stacks/web up --detach --wait",
    )
    before = machine.succeed(started)
    machine.succeed(
        "(docker wait web-web-1; dd if=/dev/zero of=/srv/small/filler bs=1M) >/dev/null 2>&1 &"
    )
    machine.fail("systemctl start docker-stack-backup.service")
    machine.succeed(up)
    # The control: it was down in between.
    assert machine.succeed(started) != before
    journal = machine.succeed("journalctl --no-pager -u docker-stack-backup.service")
    assert "No space left on device" in journal, journal

with subtest("older archives are whole, and nothing unfinished is left"):
    assert machine.succeed("cd /srv/small/backup/web; ls *.tar*").split() == first
    machine.succeed(f"tar -tf /srv/small/backup/web/{first[0]}")

with subtest("with room again, the next run is good"):
    machine.succeed("rm /srv/small/filler", "systemctl start docker-stack-backup.service")
