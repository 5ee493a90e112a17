# A good run hands over to Borg, a failed one does not.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.succeed("head -c 4M /dev/urandom >/srv/stacks/web/site/photo")
borg = "BORG_REPO=/srv/borg BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes borg"
job = "borgbackup-job-stacks.service"


def archives() -> list[str]:
    return machine.succeed(f"{borg} list --short").split()


def night() -> None:
    machine.succeed("systemctl start docker-stack-backup.service")
    machine.wait_until_succeeds(
        f"test \"$(systemctl show -P ActiveState {job})\" = inactive;"
        f" test \"$(systemctl show -P ExecMainStartTimestampMonotonic {job})\""
        " -gt \"$(systemctl show -P ExecMainStartTimestampMonotonic docker-stack-backup.service)\""
    )
    assert machine.get_unit_property(job, "Result") == "success"


with subtest("the archives are in Borg's, and nothing unfinished"):
    machine.succeed("mkdir -p /srv/backup/elsewhere", "touch /srv/backup/elsewhere/x.tar.partial")
    night()
    [first] = archives()
    paths = machine.succeed(f"{borg} list --format '{{path}}{{NL}}' ::{first}").split()
    assert any(path.startswith("srv/backup/web/web_") for path in paths), paths
    assert not any(path.endswith(".partial") for path in paths), paths

with subtest("a second night stores little again"):
    night()
    second = [name for name in archives() if name != first][0]
    sizes = machine.succeed(
        f"{borg} info --json ::{second} | tr -d ' \"\\n' | grep -oE '(original|deduplicated)_size:[0-9]+'"
        " | head -n 2"
    )
    size = dict(line.split(":") for line in sizes.split())
    assert int(size["deduplicated_size"]) * 4 < int(size["original_size"]), size

with subtest("a failed run hands nothing over"):
    machine.succeed("mv /srv/stacks/web /srv/stacks/gone")
    machine.fail("systemctl start docker-stack-backup.service")
    machine.sleep(3)
    assert len(archives()) == 2, archives()
