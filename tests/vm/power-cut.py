# The power fails during a run; the boot brings everything up, and tells of it.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed("dd if=/dev/zero of=/srv/stacks/web/big bs=1M count=400 status=none", "sync")
machine.succeed("systemctl start --no-block docker-stack-backup.service")
machine.succeed(
    "until ls /srv/backup/web/*.partial 2>/dev/null; do sleep 0.05; done;"
    # Held there, so that there is time to look.
    " systemctl kill --kill-whom=all --signal=STOP docker-stack-backup.service",
    timeout=300,
)
machine.succeed("test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = db-db-1")
machine.crash()
machine.start()

with subtest("every stack is up again"):
    machine.wait_until_succeeds(
        "test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = 'db-db-1 web-cache-1 web-web-1'"
    )
    # Docker itself leaves down what was stopped: it was the unit at boot.
    recovered = machine.succeed("journalctl -b --no-pager -u docker-stack-backup-recover.service")
    assert "web: left stopped, starting it" in recovered, recovered
    machine.wait_until_succeeds(
        "test \"$(systemctl show -P Result docker-stack-backup-recover.service)\" = success;"
        " test -z \"$(ls /var/lib/docker-stack-backup/journal)\""
    )

with subtest("what was not finished is no archive"):
    machine.fail("ls /srv/backup/web/*.tar")
    listed = machine.succeed("docker-stack-backup list")
    assert "\nweb " not in listed, listed

with subtest("the next run is good and leaves nothing unfinished"):
    machine.succeed("/etc/dsb-test/prepare", "systemctl start docker-stack-backup.service")
    machine.succeed("ls /srv/backup/web/*.tar")
    machine.fail("ls /srv/backup/web/*.partial")

with subtest("a run that was cut off while the stack was up is told of, too"):
    machine.succeed("systemctl start --no-block docker-stack-backup.service")
    machine.succeed(
        # It has begun, and asks Docker what there is.
        "until grep '\"finished\": null' /var/lib/docker-stack-backup/last-run.json; do sleep 0.05; done;"
        " systemctl kill --kill-whom=all --signal=STOP docker-stack-backup.service",
        timeout=300,
    )
    machine.succeed("test -z \"$(ls /var/lib/docker-stack-backup/journal)\"")
    machine.crash()
    machine.start()
    # The mail server's password went with /run: that is in the report, too.
    machine.wait_until_succeeds("docker-stack-backup report | grep -i 'interrupted (killed)'")
    machine.succeed("docker-stack-backup report | grep 'mail: not sent yet'")
