# Two jobs, each with its own timer, store and recovery. The paths of one have spaces and
# percent signs.
start_all()
machine.succeed("/etc/dsb-test/prepare")
stack = "/srv/100% of it/linked stack"
store = "/srv/a store/100%/linked"
simple = "docker-stack-backup.service"
job = "docker-stack-backup-run-media.service"
recover = "docker-stack-backup-recover-media.service"
command = "docker-stack-backup --config /etc/docker-stack-backup/jobs/media.json"
running = "docker ps --format '{{.Names}}' | sort | xargs"
up = f"test \"$({running})\" = 'db-db-1 linkedstack-cache-1 linkedstack-web-1'"
down = f"test \"$({running})\" = db-db-1"
machine.succeed(
    "docker compose --project-directory /srv/stacks/web down",
    f"mkdir -p '{stack}'",
    f"cp -rL /etc/dsb-test/stacks/web/site '{stack}/'",
    f"ln -s \"$(readlink -f /etc/dsb-linked/compose.yaml)\" '{stack}/compose.yaml'",
    f"dd if=/dev/zero of='{stack}/big' bs=1M count=200 status=none",
    f"docker compose --project-directory '{stack}' up --detach --wait",
    up,
)


def hold_in_the_middle() -> None:
    """Freezes the job's run while its stack is down."""
    machine.succeed(f"systemctl start --no-block {job}")
    machine.succeed(
        f"until ls '{store}'/*.partial 2>/dev/null; do sleep 0.05; done;"
        f" systemctl kill --kill-whom=all --signal=STOP {job}",
        timeout=300,
    )
    machine.succeed(down)


with subtest("the timer of a job starts its run alone"):
    timer = machine.get_unit_info("docker-stack-backup-run-media.timer")
    assert timer["NextElapseUSecRealtime"].startswith("Sun "), timer
    machine.succeed("/etc/dsb-test/let-timer-elapse docker-stack-backup-run-media")
    result = machine.get_unit_property(job, "Result")
    assert result == "success", result
    machine.succeed(f"ls '{store}'/linked_*.tar", up)
    machine.fail("ls /srv/backup/db/*.tar")

with subtest("a compose file in the Nix store is named, because the archive lacks it"):
    report = machine.succeed(f"{command} report")
    target = machine.succeed(f"readlink -f '{stack}/compose.yaml'").strip()
    assert target.startswith("/nix/store/"), target
    assert target in report, report
    members = machine.succeed(f"tar -tf '{store}'/linked_*.tar").split("\n")
    assert "linked/compose.yaml" in members, members

with subtest("the stack comes back out of its archive, with the link"):
    machine.succeed(
        f"rm '{stack}/site/index.html'",
        f"{command} restore linked --yes",
        f"test -e '{stack}/site/index.html'",
        f"test -L '{stack}/compose.yaml'",
        up,
    )

with subtest("a drill unpacks what such paths hold"):
    machine.succeed("systemctl start docker-stack-backup-drill-media.service", up)

with subtest("while one job holds its stack, the other goes on"):
    machine.succeed(f"rm '{store}'/*.tar")
    hold_in_the_middle()
    machine.succeed(f"systemctl start {simple}", "ls /srv/backup/db/db_*.tar", down)

with subtest("killed, it starts its stack"):
    machine.succeed(f"systemctl kill --kill-whom=main --signal=KILL {job}")
    machine.wait_until_succeeds(f"systemctl is-failed {job}")
    machine.succeed(up)
    machine.fail(f"ls '{store}'/*.tar")

with subtest("after a power cut, its own unit starts its stack"):
    hold_in_the_middle()
    machine.crash()
    machine.start()
    machine.wait_until_succeeds(up)
    recovered = machine.succeed(f"journalctl -b --no-pager -u {recover}")
    assert "linked: left stopped, starting it" in recovered, recovered
    # The control: the recovery of the simple form knows nothing of it.
    other = machine.succeed("journalctl -b --no-pager -u docker-stack-backup-recover.service")
    assert "linked" not in other, other
