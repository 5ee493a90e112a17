# The drills' timer: throw-away projects come up and go, beside the real stacks.
start_all()
machine.succeed("/etc/dsb-test/prepare")
unit = "docker-stack-backup-drill.service"
run = "docker-stack-backup.service"
state = "/var/lib/docker-stack-backup"
containers = "docker ps --all --format '{{.Names}}'"
up = f"test \"$({containers} | sort | xargs)\" = 'db-db-1 web-cache-1 web-web-1'"
# All that there is of a drill.
traces = (
    f"({containers}; docker volume ls --format '{{{{.Name}}}}';"
    f" docker network ls --format '{{{{.Name}}}}'; ls {state}/drill) | grep -E '^(dsbdrill-.*|db|web)$'"
)
# Files that only a unit that may make them can unpack.
machine.succeed(
    "chown 70:70 /srv/stacks/web/site/index.html",
    "mknod /srv/stacks/web/site/null c 1 3",
    "install -m 2755 -g 70 /etc/dsb-test/prepare /srv/stacks/web/site/set-group-id",
)


def hold_in_the_middle() -> None:
    """The drill is frozen with a part of its traces there."""
    machine.succeed(f"systemctl start --no-block {unit}")
    machine.succeed(
        "until docker volume ls --quiet | grep -q dsbdrill-db; do sleep 0.05; done;"
        f" systemctl kill --kill-whom=main --signal=STOP {unit}",
        timeout=300,
    )
    machine.succeed(traces)


def wait_for_end_of(name: str) -> None:
    machine.wait_until_succeeds(
        f"systemctl show -P ActiveState {name} | grep -qE '^(inactive|failed)$'"
    )


def mails() -> str:
    return machine.succeed("cat /home/admin/Maildir/new/* 2>/dev/null || true")


with subtest("its timer starts it"):
    machine.succeed(f"systemctl start {run}", up)
    timer = machine.get_unit_info("docker-stack-backup-drill.timer")
    assert timer["ActiveState"] == "active", timer
    assert timer["NextElapseUSecRealtime"].startswith("Sun ") and " 05:" in timer["NextElapseUSecRealtime"], timer
    machine.succeed(
        f"rm -f {state}/drills.json",
        "date +%s.%N >/tmp/began",
        "/etc/dsb-test/let-timer-elapse docker-stack-backup-drill",
    )
    result = machine.get_unit_property(unit, "Result")
    assert result == "success", result

with subtest("throw-away projects came up and went, the real stacks were left alone"):
    events = machine.succeed(
        "docker events --since $(cat /tmp/began) --until $(date +%s)"
        " --filter event=start --filter event=destroy --format '{{.Action}} {{.Actor.Attributes.name}}'"
    ).split("\n")
    for name in ["dsbdrill-db-db-1", "dsbdrill-web-cache-1", "dsbdrill-web-web-1"]:
        assert f"start {name}" in events and f"destroy {name}" in events, events
    assert not any(event.split()[1:] == ["db-db-1"] for event in events), events
    machine.succeed(up)
    machine.fail(traces)

with subtest("what came of them is mailed and noted"):
    machine.wait_until_succeeds("grep -l 'DRILL' /home/admin/Maildir/new/*")
    assert "Subject: [docker-backup] DRILL SUCCESS on " in mails(), mails()
    assert "DRILL SUCCESS: 2 stacks came up healthy" in mails(), mails()
    machine.succeed(f"grep -q '\"db\"' {state}/drills.json", f"grep -q '\"web\"' {state}/drills.json")

with subtest("one that is killed half-way leaves no trace"):
    hold_in_the_middle()
    machine.succeed(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    assert machine.get_unit_property(unit, "Result") == "signal"
    machine.fail(traces)
    machine.succeed(up)

with subtest("one that is stopped leaves no trace, and mails what was done"):
    machine.succeed("rm /home/admin/Maildir/new/*")
    hold_in_the_middle()
    machine.succeed(f"systemctl kill --kill-whom=main --signal=TERM {unit}")
    machine.succeed(f"systemctl kill --kill-whom=main --signal=CONT {unit}")
    wait_for_end_of(unit)
    status = machine.get_unit_property(unit, "ExecMainStatus")
    assert status == "2", status
    machine.fail(traces)
    machine.wait_until_succeeds("grep -l 'DRILL' /home/admin/Maildir/new/*")
    assert "DRILL INTERRUPTED (SIGTERM): db, web not drilled" in mails(), mails()

with subtest("a run waits for a drill, and both are good"):
    hold_in_the_middle()
    machine.succeed(f"systemctl start --no-block {run}")
    machine.wait_until_succeeds(f"journalctl -u {run} | grep -q 'waiting for the drill'")
    machine.succeed("systemctl kill --kill-whom=main --signal=CONT " + unit)
    for name in [unit, run]:
        wait_for_end_of(name)
        assert machine.get_unit_property(name, "Result") == "success", name
    machine.succeed(up)
    machine.fail(traces)

with subtest("the control: without ExecStopPost, traces stay until the recover unit is started"):
    machine.succeed(
        "for unit in docker-stack-backup-drill docker-stack-backup-recover; do"
        "   mkdir -p /run/systemd/system/$unit.service.d; done",
        f"printf '[Service]\\nExecStopPost=\\n' >/run/systemd/system/{unit}.d/none.conf",
        "printf '[Unit]\\nConditionPathExists=/nowhere\\n'"
        " >/run/systemd/system/docker-stack-backup-recover.service.d/never.conf",
        "systemctl daemon-reload",
    )
    hold_in_the_middle()
    machine.succeed(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.sleep(5)
    machine.succeed(traces)
    machine.succeed(
        "rm /run/systemd/system/docker-stack-backup-recover.service.d/never.conf",
        "systemctl daemon-reload",
        "systemctl start docker-stack-backup-recover.service",
    )
    machine.fail(traces)
