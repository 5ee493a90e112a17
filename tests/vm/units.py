# What systemd says of the units, and how far their sandbox goes.
start_all()
# With the highest exposure of each, in tenths: to unpack archives takes more.
units = {
    "docker-stack-backup.service": 26,
    "docker-stack-backup-recover.service": 22,
    "docker-stack-backup-drill.service": 27,
    "docker-stack-backup-verify.service": 26,
}
timers = [
    "docker-stack-backup.timer",
    "docker-stack-backup-drill.timer",
    "docker-stack-backup-verify.timer",
]

with subtest("systemd finds nothing to complain about"):
    complaints = machine.succeed(
        f"systemd-analyze verify --man=no {' '.join([*units, *timers])} 2>&1"
    )
    assert complaints == "", complaints
    # The control: it does see mistakes.
    machine.succeed(
        "sed 's/^ProtectSystem=.*/ProtectSystem=sometimes/' /etc/systemd/system/docker-stack-backup.service"
        " >/tmp/wrong.service"
    )
    complaints = machine.succeed("systemd-analyze verify --man=no /tmp/wrong.service 2>&1")
    assert "sometimes" in complaints, complaints

with subtest("the exposure is as low as the work allows"):
    for unit, most in units.items():
        machine.succeed(f"systemd-analyze security --threshold={most} {unit}")
        exposure = machine.succeed(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        machine.log(exposure)

with subtest("the timer is set as configured"):
    calendar = machine.succeed("systemctl show -P TimersCalendar docker-stack-backup.timer")
    assert "03:00" in calendar, calendar
    assert machine.get_unit_property("docker-stack-backup.timer", "RandomizedDelayUSec") == "30min"
