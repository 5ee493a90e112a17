# The timer elapses; two real stacks go through stop, archive, start.
start_all()
machine.succeed("/etc/dsb-test/prepare")
psql = "docker exec db-db-1 psql -U postgres -tAc"
machine.succeed(f"{psql} 'create table t as select generate_series(1, 1000) n'")

with subtest("the timer starts the run, and would do so at 03:00"):
    timer = machine.get_unit_info("docker-stack-backup.timer")
    assert timer["ActiveState"] == "active", timer
    # With its random delay of half an hour.
    assert " 03:" in timer["NextElapseUSecRealtime"], timer
    machine.succeed("date +%s.%N >/tmp/began", "/etc/dsb-test/let-timer-elapse docker-stack-backup")
    result = machine.get_unit_property("docker-stack-backup.service", "Result")
    assert result == "success", result

with subtest("one stack after the other, dependants stopped first and started last"):
    events = machine.succeed(
        "docker events --since $(cat /tmp/began) --until $(date +%s)"
        " --filter event=die --filter event=start --format '{{.Action}} {{.Actor.Attributes.name}}'"
    ).split("\n")
    expected = ["die db-db-1", "start db-db-1"]
    expected += ["die web-web-1", "die web-cache-1", "start web-cache-1", "start web-web-1"]
    assert [event for event in events if event] == expected, events

with subtest("the archives hold the directories and the volume"):
    machine.succeed("cp /srv/backup/db/db_*.tar /tmp/db.tar", "cp /srv/backup/web/web_*.tar /tmp/web.tar")
    members = machine.succeed("tar -tf /tmp/web.tar").split("\n")
    for member in ["web.manifest.json", "web/compose.yaml", "web/site/index.html"]:
        assert member in members, members
    members = machine.succeed("tar -tf /tmp/db.tar").split("\n")
    for member in ["db.manifest.json", "db/compose.yaml", "db.volumes/db_data/PG_VERSION"]:
        assert member in members, members

with subtest("the database comes back out of its archive"):
    machine.succeed(
        "mkdir /tmp/restored",
        "tar -xpf /tmp/db.tar --numeric-owner -C /tmp/restored",
        "docker run --detach --init --name restored"
        " --volume /tmp/restored/db.volumes/db_data:/var/lib/postgresql/data"
        " docker-stack-backup/debian:1 postgres-server",
    )
    machine.wait_until_succeeds("docker exec restored pg_isready -q -U postgres")
    rows = machine.succeed("docker exec restored psql -U postgres -tAc 'select count(*) from t'")
    assert rows.strip() == "1000", rows

with subtest("the report is mailed with TLS and a login, in plain ASCII"):
    machine.wait_until_succeeds("ls /home/admin/Maildir/new/*")
    mail = machine.succeed("cat /home/admin/Maildir/new/*")
    assert "Subject: [docker-backup] SUCCESS on " in mail, mail
    assert "SUCCESS: 2 stacks backed up" in mail, mail
    # RFC 3848: with TLS (S) and authenticated (A).
    assert "with ESMTPSA" in mail, mail
    assert mail.isascii(), mail
    assert "pass word" not in mail, mail

with subtest("an administrator's shell finds the configuration by itself"):
    listed = machine.succeed("docker-stack-backup list")
    assert "\ndb " in listed and "\nweb " in listed, listed
