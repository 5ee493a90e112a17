# A stack that was down stays down, and is archived all the same. The Engine's socket is
# where that of a rootless one would be, but nobody else can replace it: this Engine is root's.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed(
    "install -d -m 700 /run/user/engine",
    "touch /run/user/engine/docker.sock",
    "mount --bind /run/docker.sock /run/user/engine/docker.sock",
)
machine.succeed("docker compose --project-directory /srv/stacks/web stop")
machine.succeed("systemctl start docker-stack-backup.service")

running = machine.succeed("docker ps --format '{{.Names}}'").split()
assert running == ["db-db-1"], running
machine.succeed("test -e /srv/backup/db/db_*.tar", "test -e /srv/backup/web/web_*.tar")

with subtest("one service of a stack that was down stays down"):
    machine.succeed(
        "docker compose --project-directory /srv/stacks/web start",
        "docker stop web-web-1",
        "systemctl start docker-stack-backup.service",
    )
    running = sorted(machine.succeed("docker ps --format '{{.Names}}'").split())
    assert running == ["db-db-1", "web-cache-1"], running

with subtest("the control: in a sandbox that hides /run/user, there is no Engine"):
    machine.succeed(
        "mkdir -p /run/systemd/system/docker-stack-backup.service.d",
        "printf '[Service]\\nProtectHome=true\\n'"
        " >/run/systemd/system/docker-stack-backup.service.d/hidden.conf",
        "systemctl daemon-reload",
    )
    machine.fail("systemctl start docker-stack-backup.service")
    journal = machine.succeed("journalctl --no-pager -u docker-stack-backup.service")
    assert "/run/user/engine/docker.sock" in journal, journal
