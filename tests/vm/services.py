# Stacks that are units of systemd: a service of the machine, and a container that a unit
# runs and that is removed when it ends.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed(
    "mkdir -p /var/lib/ledger /srv/cache",
    "echo first >/srv/cache/content",
    "echo mode=fast >/srv/ledger.conf",
    "dd if=/dev/zero of=/var/lib/ledger/big bs=1M count=400 status=none",
    "systemctl start ledger.service ledger-reader.service bystander.service docker-cache.service",
)
unit = "docker-stack-backup.service"
units = ["ledger.service", "ledger-reader.service", "docker-cache.service"]
names = " ".join(units)
up = f"systemctl is-active {names} bystander.service && docker inspect cache"
journal = "/var/lib/docker-stack-backup/journal"
in_the_middle = (
    "until ls /srv/backup/ledger/*.partial 2>/dev/null; do sleep 0.05; done;"
    f" systemctl kill --kill-whom=all --signal=STOP {unit}"
)
machine.wait_until_succeeds(up)


def invocation(name: str) -> str:
    return machine.get_unit_property(name, "InvocationID")


def entered(name: str) -> int:
    return int(machine.get_unit_property(name, "ActiveEnterTimestampMonotonic"))


def hold_in_the_middle() -> None:
    machine.succeed(up)
    machine.succeed("rm -f /srv/backup/ledger/*")
    machine.succeed(f"systemctl start --no-block {unit}")
    machine.succeed(in_the_middle, timeout=300)
    # The control of all that follows: it is down.
    machine.fail("systemctl is-active ledger.service")
    machine.fail("systemctl is-active ledger-reader.service")
    machine.succeed("systemctl is-active bystander.service docker-cache.service")


with subtest("what a run would do is shown"):
    plan = machine.succeed("docker-stack-backup plan")
    assert "units     ledger.service" in plan, plan
    assert "stops     ledger.service ledger-reader.service" in plan, plan
    assert "stops     docker-cache.service" in plan, plan
    assert "REFUSED" not in plan, plan
    checked = machine.succeed("docker-stack-backup check --live || true")
    assert "ok      stack ledger: units ledger.service, 2 running" in checked, checked
    assert "ok      systemd" in checked, checked

with subtest("units are stopped with those that need them, and started in their order"):
    before = {name: invocation(name) for name in [*units, "bystander.service"]}
    machine.succeed(f"systemctl start {unit}", up)
    for name in units:
        assert invocation(name) != before[name], name
    assert invocation("bystander.service") == before["bystander.service"]
    assert entered("ledger.service") <= entered("ledger-reader.service")
    listed = machine.succeed("tar -tf /srv/backup/ledger/ledger_*.tar")
    for member in ["ledger/log", "ledger/big", "ledger.binds/srv/ledger.conf"]:
        assert f"{member}\n" in listed, listed
    found = machine.succeed("tar -xOf /srv/backup/cache/cache_*.tar cache/content")
    assert found == "first\n", found
    machine.fail(f"ls {journal}/*")
    status = machine.succeed("docker-stack-backup status || true")
    assert "ledger  running" in status and "cache   running" in status, status

with subtest("a drill says that nothing was started"):
    drilled = machine.succeed("docker-stack-backup drill ledger")
    assert "skipped ledger: not started" in drilled, drilled
    assert "compared with its sums" in drilled, drilled
    # The control: damage is found.
    machine.succeed(
        "mkdir /srv/damaged",
        "cp /srv/backup/ledger/ledger_* /srv/damaged",
        "printf x | dd of=$(ls /srv/damaged/*.tar) bs=1 seek=200000000 conv=notrunc status=none",
    )
    drilled = machine.fail("docker-stack-backup drill /srv/damaged/*.tar")
    assert "FAILED" in drilled and "is damaged" in drilled, drilled
    machine.succeed("rm -r /srv/damaged")

with subtest("a restore puts the data back, and starts the units"):
    before = {name: invocation(name) for name in units}
    machine.succeed(
        "rm /srv/ledger.conf",
        "touch /var/lib/ledger/new",
        "docker-stack-backup restore --yes ledger",
        "test ! -e /var/lib/ledger/new",
        "grep mode=fast /srv/ledger.conf",
        up,
    )
    assert invocation("ledger-reader.service") != before["ledger-reader.service"]
    assert invocation("docker-cache.service") == before["docker-cache.service"]
    # The service writes to the data that was put back.
    machine.succeed("lines() { wc -l </var/lib/ledger/log; }; n=$(lines); sleep 1; test $(lines) -gt $n")

with subtest("after SIGKILL while they are down, they are started"):
    hold_in_the_middle()
    machine.succeed(f"ls {journal}/ledger.json")
    machine.succeed(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.wait_until_succeeds(f"{up} && ! ls {journal}/*")
    machine.fail("ls /srv/backup/ledger/*.tar")

with subtest("a worker that is killed leaves nothing down"):
    hold_in_the_middle()
    machine.succeed(
        "for process in /proc/[0-9]*; do"
        " if tr '\\0' ' ' <$process/cmdline | grep -q 'docker-stack-backup.*[w]orker'; then"
        " kill -KILL ${process#/proc/}; fi; done",
        f"systemctl kill --kill-whom=all --signal=CONT {unit}",
    )
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.wait_until_succeeds(f"{up} && ! ls {journal}/*")

with subtest("a unit that a timer starts while it is down fails the archive"):
    machine.succeed(
        "mkdir -p /run/systemd/system",
        "printf '[Timer]\\nOnActiveSec=0\\nAccuracySec=1ms\\n' >/run/systemd/system/ledger.timer",
        "systemctl daemon-reload",
    )
    hold_in_the_middle()
    machine.succeed("systemctl start ledger.timer")
    machine.wait_until_succeeds("systemctl is-active ledger.service")
    # It has ended again: its number tells that it ran.
    machine.succeed(
        "systemctl stop ledger.timer ledger.service",
        f"systemctl kill --kill-whom=all --signal=CONT {unit}",
    )
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.wait_until_succeeds(up)
    machine.fail("ls /srv/backup/ledger/*.tar")
    report = machine.succeed("docker-stack-backup report")
    # Lines of the report are broken.
    assert "was started while its data was copied" in " ".join(report.split()), report
    machine.succeed("rm /run/systemd/system/ledger.timer", "systemctl daemon-reload")

with subtest("a unit whose stop would lose data is not stopped"):
    machine.succeed(
        "systemctl stop docker-cache.service",
        "mkdir -p /run/systemd/system/docker-cache.service.d",
        "printf '[Service]\\nExecStopPost=-/usr/bin/env docker volume rm data\\n'"
        " >/run/systemd/system/docker-cache.service.d/removes.conf",
        "systemctl daemon-reload",
        "systemctl start docker-cache.service",
    )
    machine.wait_until_succeeds(up)
    before = {name: invocation(name) for name in units}
    refused = machine.execute("docker-stack-backup plan cache")[1]
    assert "REFUSED" in refused and "would remove volumes" in refused, refused
    machine.fail("docker-stack-backup run cache")
    assert invocation("docker-cache.service") == before["docker-cache.service"]
    machine.succeed(
        "systemctl stop docker-cache.service",
        "rm /run/systemd/system/docker-cache.service.d/removes.conf",
        "systemctl daemon-reload",
        "systemctl start docker-cache.service",
    )
    machine.wait_until_succeeds(up)

with subtest("a unit that does not come up is told, and stays in the journal"):
    hold_in_the_middle()
    machine.succeed(
        "mkdir -p /run/systemd/system/ledger.service.d",
        "printf '[Service]\\nExecStartPre=/usr/bin/env false\\n'"
        " >/run/systemd/system/ledger.service.d/fails.conf",
        "systemctl daemon-reload",
        f"systemctl kill --kill-whom=all --signal=CONT {unit}",
    )
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.succeed(f"ls {journal}/ledger.json")
    # In between, the recovery unit tries again.
    machine.wait_until_succeeds("(docker-stack-backup status || true) | grep 'ledger  DOWN'")
    machine.succeed(
        "rm /run/systemd/system/ledger.service.d/fails.conf",
        "systemctl daemon-reload",
        "systemctl reset-failed",
        "docker-stack-backup recover",
        up,
    )
    machine.fail(f"ls {journal}/*")

with subtest("after a power cut all are up, and the journal is closed"):
    hold_in_the_middle()
    machine.crash()
    machine.start()
    # systemd has started the first, and the recovery the second.
    machine.wait_until_succeeds("systemctl is-active ledger.service ledger-reader.service")
    machine.wait_until_succeeds(f"! ls {journal}/*")
    recovered = machine.succeed("journalctl -b --no-pager -u docker-stack-backup-recover.service")
    assert "ledger: left stopped, starting it" in recovered, recovered
