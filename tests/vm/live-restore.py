# The Engine is restarted, as an upgrade does it, while a stack is down.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed("dd if=/dev/zero of=/srv/stacks/web/big bs=1M count=200 status=none")
run = "docker-stack-backup.service"
running = "docker ps --format '{{.Names}}' | sort | xargs"
up = f"test \"$({running})\" = 'db-db-1 web-cache-1 web-web-1'"
started = "docker inspect --format '{{.State.StartedAt}}' db-db-1"

machine.succeed(f"systemctl start --no-block {run}")
machine.succeed(
    "until ls /srv/backup/web/*.partial 2>/dev/null; do sleep 0.05; done;"
    f" systemctl kill --kill-whom=all --signal=STOP {run}",
    timeout=300,
)
machine.succeed(f"test \"$({running})\" = db-db-1")
before = machine.succeed(started)
machine.succeed("systemctl restart docker.service")
# The control: it is live-restore, so what ran was not started again.
assert machine.succeed(started) == before
machine.succeed(f"systemctl kill --kill-whom=all --signal=CONT {run}")
machine.wait_until_succeeds(f"systemctl show -P ActiveState {run} | grep -qE '^(inactive|failed)$'")
result = machine.get_unit_property(run, "Result")
assert result == "success", result
machine.succeed(up, "ls /srv/backup/web/web_*.tar")
