# Nights go by; each run removes what is too old.
from datetime import date

foreign = {"notes.txt", "other_20200101_000000.tar", "web_20200101_000000.tar.gz"}
start_all()
machine.succeed("/etc/dsb-test/prepare")
# What is down is archived as it is, and quickly.
machine.succeed("docker compose --project-directory /srv/stacks/web stop")


def run() -> None:
    # So many runs within seconds are more than systemd allows.
    machine.succeed("systemctl reset-failed", "systemctl start docker-stack-backup.service")


def days_go_by(days: int) -> None:
    """The clock stays, and what is stored grows older."""
    machine.succeed(
        "cd /srv/backup/web; for old in web_*_*.tar web_*_*.sums; do"
        "   time=${old#web_}; time=${time%.*};"
        "   day=$(date -d \"${time%_*} -" f"{days}" " days\" +%Y%m%d);"
        "   mv \"$old\" \"web_${day}_${time#*_}.${old##*.}\";"
        " done"
    )


def stored() -> list[str]:
    names = machine.succeed("ls /srv/backup/web").split()
    # Sums go with their archives.
    sums = [name for name in names if name.endswith(".sums")]
    assert all(name.removesuffix("sums") + "tar" in names for name in sums), names
    checks = {name for name in names if name.endswith(".checks.json")}
    return sorted(set(names) - set(sums) - checks)


def ages() -> list[int]:
    """In days, of this stack's archives, the newest first."""
    days = [f"{name[4:8]}-{name[8:10]}-{name[10:12]}" for name in stored() if name not in foreign]
    today = date.fromisoformat(machine.succeed("date +%F").strip())
    return sorted((today - date.fromisoformat(day)).days for day in days)


with subtest("what is old enough goes, and the newest never"):
    run()
    machine.succeed(
        "cp /srv/backup/web/web_*.tar /srv/backup/web/web_20200101_000000.tar",
        # Neither is an archive of this stack, by its name.
        "touch /srv/backup/web/notes.txt /srv/backup/web/other_20200101_000000.tar",
        "touch /srv/backup/web/web_20200101_000000.tar.gz",
    )
    days_go_by(1)
    run()
    assert ages() == [0, 1], stored()
    assert foreign <= set(stored()), stored()

with subtest("three days are kept"):
    for _ in range(3):
        days_go_by(1)
        run()
    kept = ages()
    # Three days and some minutes old or not.
    assert kept in ([0, 1, 2], [0, 1, 2, 3]), kept

with subtest("a failed backup removes nothing"):
    # A stack that cannot be backed up: nothing of it is removed.
    days_go_by(40)
    machine.succeed("mv /srv/stacks/web /srv/stacks/gone")
    machine.succeed("systemctl reset-failed")
    machine.fail("systemctl start docker-stack-backup.service")
    assert ages() == [age + 40 for age in kept], stored()
    # The control: with a good run they go, but for the new one.
    machine.succeed("mv /srv/stacks/gone /srv/stacks/web")
    run()
    assert ages() == [0], stored()
