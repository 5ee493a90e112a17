# A stack that was down stays down, and is archived all the same.
start_all()
machine.succeed("/etc/dsb-test/prepare")
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
