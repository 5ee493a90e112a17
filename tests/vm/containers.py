# Stacks of units that run containers, as the common modules of NixOS make them: with
# Podman, of root and of a user, with Docker, by Compose, and a native database.
import json

start_all()
machine.succeed("/etc/dsb-test/prepare")
image = "docker.io/docker-stack-backup/busybox:1"
as_admin = "runuser -u admin -- env XDG_RUNTIME_DIR=/run/user/1000 HOME=/home/admin"
psql = f"{as_admin} psql --host=/run/database --dbname=postgres --tuples-only --no-align --command"
machine.succeed(
    "mkdir -p /var/lib/systemd/linger",
    "touch /var/lib/systemd/linger/admin",
    "systemctl start user@1000.service",
    "systemctl start podman.socket",
    "docker save docker-stack-backup/busybox:1 >/run/busybox.tar",
    "chmod 644 /run/busybox.tar",
    "podman load --quiet --input /run/busybox.tar",
)
machine.succeed(
    f"{as_admin} systemctl --user start podman.socket",
    f"cd / && {as_admin} podman load --quiet --input /run/busybox.tar",
    "install -d --owner=admin --group=admin --mode=700 /var/lib/database",
    f"cd / && {as_admin} initdb --auth=trust --no-sync --pgdata=/var/lib/database >/dev/null",
    "systemctl reset-failed",
)
units = {
    "database": "database.service",
    "diary": "podman-diary.service",
    "media": "arion-media.service",
    "notes": "notes.service",
    "shop": "docker-shop-web.service",
    "wiki": "podman-wiki.service",
}
runs = {
    "database": f"cd / && {psql} 'select 1'",
    "diary": f"cd / && {as_admin} podman inspect diary --format '{{{{.State.Status}}}}' | grep -x running",
    "media": "docker inspect media-player-1 --format '{{.State.Status}}' | grep -x running",
    "notes": "podman inspect notes --format '{{.State.Status}}' | grep -x running",
    "shop": "docker inspect shop-web --format '{{.State.Status}}' | grep -x running",
    "wiki": "podman inspect wiki --format '{{.State.Health.Status}}' | grep -x healthy",
}
up = {name: f"systemctl is-active {unit} && {runs[name]}" for name, unit in units.items()}
machine.succeed(
    "systemctl start " + " ".join(units.values()) + " compose-web.service docker-compose-shop-root.target"
)
# Podman's timer would check the health an hour later.
machine.wait_until_succeeds("podman healthcheck run wiki")
for name in units:
    machine.wait_until_succeeds(up[name])
data = {
    "diary": "/home/admin/.local/share/containers/storage/volumes/diary/_data",
    "media": "/var/lib/docker/volumes/media_library/_data",
    "notes": "/var/lib/containers/storage/volumes/notes-data/_data",
    "shop": "/var/lib/docker/volumes/shop_data/_data",
    "wiki": "/var/lib/containers/storage/volumes/wiki-data/_data",
}
for name, path in data.items():
    machine.succeed(f"echo {name} >{path}/content")
machine.succeed(f"cd / && {psql} 'create table t as select 42 as answer'")

with subtest("each is known by its containers"):
    plan = machine.succeed("docker-stack-backup plan")
    assert "REFUSED" not in plan, plan
    for unit in units.values():
        assert f"stops     {unit}" in plan, plan
    checked = machine.execute("docker-stack-backup check --live")[1]
    assert "engine unix:///run/user/1000/podman/podman.sock: Podman answers" in checked, checked
    # A unit runs the one project, and nobody backs up the other one.
    assert "project media" not in checked, checked
    assert "project db: " in checked, checked

with subtest("each is stopped, archived, and up again when its containers are healthy"):
    machine.succeed("systemctl start docker-stack-backup.service")
    for name in units:
        machine.succeed(up[name])
    for name in data:
        found = machine.succeed(f"tar -xOf /srv/backup/{name}/{name}_*.tar {name}/content")
        assert found == f"{name}\n", found
    machine.succeed("tar -tf /srv/backup/database/database_*.tar | grep PG_VERSION")
    # The unit whose containers were stopped without it has not noticed.
    machine.succeed("systemctl is-active compose-web.service", "test -e /srv/backup/web/web_*.tar")
    report = json.loads(machine.succeed("docker-stack-backup report --json"))
    assert len(report["stacks"]) == len(units) + 1, report
    for stack in report["stacks"]:
        assert stack["status"] == "ok" and stack["warnings"] == [], stack

with subtest("Podman that does not answer is told"):
    machine.succeed("systemctl stop podman.socket podman.service", "rm -f /run/podman/podman.sock")
    plan = machine.succeed("docker-stack-backup plan notes")
    assert "notes.service runs containers by Podman" in " ".join(plan.split()), plan
    machine.succeed("systemctl start podman.socket")
    plan = machine.succeed("docker-stack-backup plan notes")
    assert "runs containers by Podman" not in " ".join(plan.split()), plan

with subtest("units whose stop would lose data are not stopped"):
    refused = {"units": "docker-volume-shop_data.service", "paths": "/srv/stacks/web"}
    machine.succeed(
        "echo '{\"stacks\": [{\"name\": \"shop\", \"units\": [\"%(units)s\"], \"paths\": [\"%(paths)s\"]}]}'"
        " >/run/refused.json" % refused
    )
    plan = machine.execute("docker-stack-backup --config /run/refused.json plan")[1]
    assert "REFUSED" in plan and "volume rm" in plan, plan
    # The same for a container with an anonymous volume, which would go with it.
    machine.succeed(
        f"podman run --detach --rm --name=anonymous --network=none --pids-limit=0 --volume=/data {image}"
        " sleep infinity",
        "systemd-run --unit=podman-anonymous sleep infinity",
        "echo '{\"stacks\": [{\"name\": \"x\", \"units\": [\"podman-anonymous.service\"],"
        " \"paths\": [\"/srv/stacks/web\"]}]}' >/run/refused.json",
    )
    plan = machine.execute("docker-stack-backup --config /run/refused.json plan")[1]
    assert "REFUSED" in plan and "anonymous:/data is an anonymous volume" in " ".join(plan.split()), plan
    machine.succeed("podman rm --force --time=0 anonymous", "systemctl stop podman-anonymous.service")

with subtest("a run that is killed while a stack is down leaves it to `recover`"):
    for name in units:
        killed = machine.succeed(f"/etc/dsb-test/kill-points --at-stop {name} '{up[name]}'")
        assert killed == "1 points, 1 down\n", (name, killed)
    answer = machine.succeed(f"cd / && {psql} 'select answer from t'")
    assert answer == "42\n", answer

with subtest("a run may be killed at any of its calls to systemd"):
    tried = machine.succeed(f"/etc/dsb-test/kill-points notes 4 '{up['notes']}'")
    machine.log(tried)
    points, down = [int(word) for word in tried.split() if word.isdecimal()]
    assert points >= 4 and down >= 1, tried

with subtest("a restore puts the data back, and waits for the containers"):
    for name in ["wiki", "diary"]:
        machine.succeed(
            f"echo changed >{data[name]}/content",
            f"docker-stack-backup restore --yes {name}",
            f"grep {name} {data[name]}/content",
            up[name],
        )

with subtest("after a power cut all are up, and the journal is closed"):
    machine.succeed(
        "systemd-run --unit=held --setenv=PATH=\"$PATH\" /etc/dsb-test/kill-points --hold wiki",
        "until test -e /run/dsb-spy/held; do sleep 0.1; done",
        timeout=300,
    )
    # The control: it is down.
    machine.fail(up["wiki"])
    machine.crash()
    machine.start()
    machine.wait_until_succeeds("! ls /var/lib/docker-stack-backup/journal/*")
    for name in units:
        if name != "wiki":
            machine.wait_until_succeeds(up[name])
    # Nobody but the recovery has run the health check.
    machine.succeed(up["wiki"])
