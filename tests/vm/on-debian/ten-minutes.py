# A person with ten stacks of many kinds, the package and the page "Getting started": from
# nothing to a backup every night that is proved to work. What is typed is what the page
# shows, and the page is that of the package.
import re
import time

start_all()
# The image keeps documents out, to be small.
machine.succeed("rm -f /etc/dpkg/dpkg.cfg.d/99mmdebstrap", "systemctl start docker.service")

# name: the rest of the service, and what stands beside it
stacks = {
    "blog": ("volumes: [./html:/html:ro]", ""),
    "cache": ("tmpfs: [/tmp]", ""),
    "cron": ("environment: {EVERY: night}\n    env_file: [/srv/secrets/cron.env]", ""),
    "db": ("", ""),
    "feeds": ("volumes: [feeds:/feeds]", "volumes: {feeds: {}}"),
    "gallery": ("volumes: [/srv/photos:/photos]", ""),
    "notes": ("volumes: [notes:/notes, ./conf:/conf]", "volumes: {notes: {}}"),
    "proxy": ("networks: [front]", "networks: {front: {external: true}}"),
    "tasks": (
        "healthcheck: {test: [CMD, 'true'], interval: 1s}\n  once:\n"
        "    image: docker-stack-backup/busybox:1\n    command: 'true'",
        "",
    ),
    "wiki": ("volumes: [pages:/pages]", "volumes: {pages: {external: true, name: pages}}"),
}
machine.succeed(
    "mkdir -p /opt/stacks /srv/photos /srv/secrets && echo TOKEN=x >/srv/secrets/cron.env",
    "docker network create front && docker volume create pages",
    "head -c 2000000 /dev/urandom >/srv/photos/1.jpg",
)
for name, (service, rest) in stacks.items():
    directory = f"/opt/stacks/{name}"
    if name == "db":
        machine.succeed(f"cp -rL /etc/dsb-test/stacks/db {directory}")
    else:
        compose = (
            "services:\n  app:\n    image: docker-stack-backup/busybox:1\n    init: true\n"
            f"    command: sleep infinity\n    {service}\n{rest}\n"
        )
        machine.succeed(f"mkdir -p {directory}/html && cat >{directory}/compose.yaml <<'END'\n{compose}END")
machine.succeed("for dir in /opt/stacks/*; do docker compose --project-directory $dir up --detach --wait & done; wait")
# One of them is not in use.
machine.succeed("docker compose --project-directory /opt/stacks/feeds stop")
running = "docker ps --format '{{.Names}} {{.Image}}' | sort"
before = machine.succeed(running)
assert len(before.splitlines()) == 9, before

began = time.monotonic()
package = "/root/docker-stack-backup_*.deb"
machine.succeed(f"dpkg-deb --fsys-tarfile {package} | tar -x -C / --wildcards '*/docs/getting-started.md'")
page = machine.succeed("cat /usr/share/doc/docker-stack-backup/docs/getting-started.md")
sections = {
    section.split("\n", 1)[0].split(". ", 1)[-1]: re.findall(r"```console\n(.*?)```", section, re.S)
    for section in page.split("\n## ")[1:]
}


def typed(section: str) -> str:
    """Types the first block of a section, line by line, and returns what is printed."""
    printed = ""
    for line in sections[section][0].replace("restore web ", "restore blog ").splitlines():
        printed += machine.succeed(f"cd /root; {{ {line}\n}} 2>&1")
    return printed


with subtest("install and configure"):
    typed("Install")
    decisions = typed("Configure")
    assert "decide: not in the archive: bind mount /srv/photos" in decisions, decisions
    assert "db: databases: db (PostgreSQL)" in decisions or "db:" in decisions, decisions
    # What a person decides, in an editor.
    machine.succeed(
        "sed -i 's|^ *\"gallery\"|{\"name\": \"gallery\", \"includeBinds\": [\"/srv/photos\"]}|;"
        " s|^ *\"wiki\"|{\"name\": \"wiki\", \"includeVolumes\": [\"pages\"]}|'"
        " /etc/docker-stack-backup/config.json"
    )

with subtest("look, and back up"):
    looked = typed("Look before you leap")
    for name in stacks:
        assert f"\n{name} (/opt/stacks/{name})" in "\n" + looked, looked
    assert "NOT in" not in looked, looked
    printed = typed("The first backup")
    assert "SUCCESS: 10 stacks backed up" in printed, printed
    assert machine.succeed(running) == before

with subtest("every night"):
    typed("Every night")
    machine.succeed("systemctl is-active docker-stack-backup.timer docker-stack-backup-drill.timer")

with subtest("prove it"):
    drilled = typed("Prove it")
    for name in stacks:
        assert name in drilled, drilled
    machine.succeed("test -e /tmp/look/blog/compose.yaml")
    # Of the drills nothing is left.
    assert machine.succeed(running) == before

seconds = round(time.monotonic() - began)
machine.log(f"adopted ten stacks in {seconds} s")
assert seconds < 600, seconds
