# What systemd says of the units, and how far their sandbox goes.
start_all()
# With the highest exposure of each, in tenths: to unpack archives takes more.
units = {
    "docker-stack-backup.service": 26,
    "docker-stack-backup-recover.service": 22,
    "docker-stack-backup-drill.service": 27,
    "docker-stack-backup-verify.service": 26,
    # A stack in /home is seen.
    "docker-stack-backup-run-awkward.service": 27,
    "docker-stack-backup-recover-awkward.service": 23,
    "docker-stack-backup-drill-awkward.service": 28,
    "docker-stack-backup-verify-awkward.service": 27,
}
others = [
    "docker-stack-backup.timer",
    "docker-stack-backup-drill.timer",
    "docker-stack-backup-verify.timer",
    "docker-stack-backup-inhibit.service",
    "docker-stack-backup-run-awkward.timer",
    "docker-stack-backup-drill-awkward.timer",
    "docker-stack-backup-verify-awkward.timer",
    "docker-stack-backup-inhibit-awkward.service",
]

def complaints(*names: str) -> str:
    """Returns what `systemd-analyze verify` says of these units, and not of others."""
    return machine.succeed(
        f"systemd-analyze verify --man=no {' '.join(names)} 2>&1 | grep docker-stack-backup || true"
    )


with subtest("systemd finds nothing to complain about"):
    said = complaints(*units, *others)
    assert said == "", said

with subtest("the controls: it sees a wrong value, and a path that is cut at its space"):
    wrong = "docker-stack-backup-wrong.service"
    for mistake, word in [
        ("s/^ProtectSystem=.*/ProtectSystem=sometimes/", "sometimes"),
        ('s/^ReadWritePaths="-\\(.*\\)"$/ReadWritePaths=-\\1/', "directory"),
    ]:
        machine.succeed(
            f"sed '{mistake}' /etc/systemd/system/docker-stack-backup-recover.service >/tmp/{wrong}"
        )
        said = complaints(f"/tmp/{wrong}")
        assert word in said, said

with subtest("systemd understands the paths as they are meant"):
    unit = "docker-stack-backup-recover-awkward.service"
    writable = machine.get_unit_property(unit, "ReadWritePaths")
    for path in ["/srv/a store/%h", "/srv/a state/100%", "/var/log/some logs", "/home/some one"]:
        assert f"-{path}" in writable, writable
    assert "-/srv/binds" in writable, writable
    wanted = machine.get_unit_property(
        "docker-stack-backup-run-awkward.service", "WantsMountsFor"
    )
    assert "/home/some one/50% off" in wanted, wanted
    required = machine.get_unit_property(unit, "RequiresMountsFor").strip('"')
    assert required == "/srv/a state/100%", required

with subtest("the exposure is as low as the work allows"):
    for unit, most in units.items():
        machine.succeed(f"systemd-analyze security --threshold={most} {unit}")
        exposure = machine.succeed(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        machine.log(exposure)

with subtest("the timer is set as configured"):
    calendar = machine.succeed("systemctl show -P TimersCalendar docker-stack-backup.timer")
    assert "03:00" in calendar, calendar
    assert machine.get_unit_property("docker-stack-backup.timer", "RandomizedDelayUSec") == "30min"
