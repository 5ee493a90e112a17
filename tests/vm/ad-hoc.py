# Without any configuration, as `nix run` does it.
start_all()
machine.succeed("/etc/dsb-test/prepare")
machine.fail("test -e /etc/docker-stack-backup/config.json")
machine.succeed("docker-stack-backup plan --stack /srv/stacks/web --backup-dir /tmp/b")
machine.fail("test -e /tmp/b")
machine.succeed("docker-stack-backup run --stack /srv/stacks/web --backup-dir /tmp/b")
members = machine.succeed("tar -tf /tmp/b/web/web_*.tar").split()
assert "web/site/index.html" in members, members
running = sorted(machine.succeed("docker ps --format '{{.Names}}'").split())
assert running == ["db-db-1", "web-cache-1", "web-web-1"], running
