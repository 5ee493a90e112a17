# Nights go by, with the clock moved on; each run removes what is too old.
start_all()
machine.succeed("/etc/dsb-test/prepare")
# What is down is archived as it is, and quickly.
machine.succeed("docker compose --project-directory /srv/stacks/web stop")


def night(day: int) -> None:
    machine.succeed(f"date -s '2027-01-{day:02} 03:00:00'", "systemctl start docker-stack-backup.service")


def stored() -> list[str]:
    names = machine.succeed("ls /srv/backup/web").split()
    # Sums go with their archives.
    sums = [name for name in names if name.endswith(".sums")]
    assert all(name.removesuffix("sums") + "tar" in names for name in sums), names
    return sorted(set(names) - set(sums))


with subtest("what is old enough goes, and the newest never"):
    night(10)
    machine.succeed(
        "cp /srv/backup/web/web_20270110_*.tar /srv/backup/web/web_20200101_000000.tar",
        # Neither is an archive of this stack, by its name.
        "touch /srv/backup/web/notes.txt /srv/backup/web/other_20200101_000000.tar",
        "touch /srv/backup/web/web_20200101_000000.tar.gz",
    )
    foreign = ["notes.txt", "other_20200101_000000.tar", "web_20200101_000000.tar.gz"]
    night(11)
    names = stored()
    assert [name[:12] for name in names if name not in foreign] == ["web_20270110", "web_20270111"], names
    assert set(foreign) <= set(names), names

with subtest("three days are kept"):
    for day in (12, 13, 14):
        night(day)
    days = [name[4:12] for name in stored() if name not in foreign]
    assert days == ["20270112", "20270113", "20270114"] or days == [
        "20270111",
        "20270112",
        "20270113",
        "20270114",
    ], days

with subtest("a failed backup removes nothing"):
    # A stack that cannot be backed up: nothing of it is removed.
    machine.succeed("mv /srv/stacks/web /srv/stacks/gone", "date -s '2027-06-01 03:00:00'")
    machine.fail("systemctl start docker-stack-backup.service")
    assert [name[4:12] for name in stored() if name not in foreign] == days, stored()
    # The control: with a good run they go, but for the new one.
    machine.succeed("mv /srv/stacks/gone /srv/stacks/web", "systemctl start docker-stack-backup.service")
    names = [name[4:12] for name in stored() if name not in foreign]
    assert names == ["20270601"], names
