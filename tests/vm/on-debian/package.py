# The Debian package from its installation to its purge, on a machine without another copy
# of the program.
import json
import shlex

start_all()
# The image keeps manuals out, to be small.
machine.succeed("rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap", "/etc/dsb-test/prepare")
package = "/root/docker-stack-backup_*.deb"
up = "test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = 'db-db-1 web-cache-1 web-web-1'"
down = "test \"$(docker ps --format '{{.Names}}' | sort | xargs)\" = db-db-1"
unit = "docker-stack-backup.service"
timers = ["docker-stack-backup.timer", "docker-stack-backup-drill.timer", "docker-stack-backup-send.timer"]
archives = "find /var/backups/docker -name '*.tar' | sort"


def hold_in_the_middle() -> None:
    """Starts a run, in which a hook waits while the stack web is down."""
    machine.succeed("rm -f /run/held; touch /run/hold", f"systemctl start --no-block {unit}")
    machine.wait_until_succeeds("test -e /run/held", timeout=300)
    machine.succeed("rm /run/hold", down)


with subtest("it is installed: the recovery is enabled, and no timer"):
    machine.fail("command -v docker-stack-backup")
    machine.succeed(f"dpkg -i {package}")
    assert machine.succeed("command -v docker-stack-backup") == "/usr/bin/docker-stack-backup\n"
    machine.succeed("systemctl is-enabled docker-stack-backup-recover.service")
    for timer in timers:
        machine.fail(f"systemctl is-enabled {timer}")
    machine.succeed("gzip -t /usr/share/man/man1/docker-stack-backup-run.1.gz")
    machine.succeed("dpkg --verify docker-stack-backup")

with subtest("bash completes its commands"):
    # What bash-completion does when a name is typed for the first time.
    offered = machine.succeed(
        "source /usr/share/bash-completion/completions/docker-stack-backup;"
        " COMP_LINE='docker-stack-backup rec' COMP_POINT=23 COMP_TYPE=9;"
        " COMP_WORDS=(docker-stack-backup rec) COMP_CWORD=1;"
        " _docker_stack_backup docker-stack-backup rec docker-stack-backup; echo \"${COMPREPLY[@]}\""
    )
    assert "recover" in offered, offered

with subtest("its example is a configuration, and the timer backs up every stack"):
    etc = "/etc/docker-stack-backup"
    machine.fail("docker-stack-backup check")
    machine.succeed(f"cp {etc}/config.json.example {etc}/config.json", "docker-stack-backup check --live")
    machine.succeed(f"systemctl enable --now {' '.join(timers)}")
    machine.succeed("/etc/dsb-test/let-timer-elapse docker-stack-backup")
    assert machine.get_unit_property(unit, "Result") == "success"
    machine.succeed(up)
    made = machine.succeed(archives).split()
    assert ["db", "web"] == [path.split("/")[4] for path in made], made

with subtest("a run that is killed is recovered by its units"):
    machine.succeed(
        "printf '#!/bin/sh\\n[ $DOCKER_STACK_BACKUP_STACK != web ] || [ ! -e /run/hold ] ||"
        " { touch /run/held; exec sleep 600; }\\n' >/root/hold && chmod +x /root/hold"
    )
    config = json.loads(machine.succeed(f"cat {etc}/config.json"))
    config["defaults"] = {"hooks": [{"when": "whileDown", "host": True, "command": ["/root/hold"]}]}
    machine.succeed(f"echo {shlex.quote(json.dumps(config))} >{etc}/config.json", "docker-stack-backup check")
    hold_in_the_middle()
    machine.succeed(f"systemctl kill --kill-whom=main --signal=KILL {unit}")
    machine.wait_until_succeeds(f"systemctl is-failed {unit}")
    machine.wait_until_succeeds(up)
    machine.wait_until_succeeds("! ls /var/lib/docker-stack-backup/journal/*")

with subtest("installed once more, it keeps what the admin has changed"):
    machine.succeed(f"echo '{{}}' >{etc}/config.json.example", "systemctl disable docker-stack-backup-recover.service")
    machine.succeed(f"dpkg -i {package} </dev/null")
    assert machine.succeed(f"cat {etc}/config.json.example") == "{}\n"
    machine.fail("systemctl is-enabled docker-stack-backup-recover.service")
    machine.succeed(f"systemctl is-enabled {' '.join(timers)}", f"systemctl is-active {' '.join(timers)}")

with subtest("it is not removed while a stack is left stopped"):
    # As a run leaves it that was killed, and whose recovery was killed, too.
    machine.succeed("echo '{}' >/var/lib/docker-stack-backup/journal/web.json")
    machine.fail("dpkg -r docker-stack-backup")
    machine.succeed("docker-stack-backup --version", "rm /var/lib/docker-stack-backup/journal/web.json")

with subtest("removed during a run, it starts the stack first, and leaves the archives"):
    machine.succeed("systemctl reset-failed")
    hold_in_the_middle()
    made = machine.succeed(archives).split()
    machine.succeed("dpkg -r docker-stack-backup", up)
    machine.fail("test -e /usr/bin/docker-stack-backup")
    for name in [unit, *timers]:
        machine.fail(f"systemctl is-active {name}")
    assert machine.succeed(archives).split() == made
    machine.succeed(f"test -e {etc}/config.json")

with subtest("installed again, it goes on where it was"):
    machine.succeed(f"dpkg -i {package}", f"systemctl is-enabled {' '.join(timers)}")
    listed = machine.succeed("docker-stack-backup list --paths").split()
    assert sorted(listed) == made, listed

with subtest("purged, it leaves the archives and the configuration that somebody wrote"):
    machine.succeed("dpkg --purge docker-stack-backup")
    machine.fail("test -e /var/lib/docker-stack-backup")
    assert machine.succeed(f"ls {etc}") == "config.json\n"
    assert machine.succeed(archives).split() == made
    machine.succeed("! find /etc/systemd /usr/lib/systemd -name 'docker-stack-backup*' | grep .", up)
