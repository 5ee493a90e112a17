# Mistakes in the configuration are found by `check`, which names the option.
start_all()


def refused(name: str, *words: str) -> None:
    message = machine.fail(f"docker-stack-backup check --config /etc/dsb-test-configs/{name}.json 2>&1")
    for word in words:
        assert word in message, message


# The control.
machine.succeed("docker-stack-backup check")
refused("bad-pattern", "`stacks[0]` (web)", "`exclude`", "[z-a]")
refused("duplicate-stack", "stack web is configured twice")
refused("keeps-nothing", "`retention`", "keeps nothing")
refused("unknown-option", "`retention.keepDay`", "did you mean `keepDays`?")
refused("store-in-stack", "`backupDir`", "would archive its own archives")
refused("no-recipient", "email.to")
