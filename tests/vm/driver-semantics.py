# What the other scripts rely on: that a method raises where it must. The same
# under NixOS's driver and under tests/vm/driver.py.
start_all()


def raises(what, *args, **kwargs) -> bool:
    try:
        what(*args, **kwargs)
    except Exception as error:
        machine.log(f"raised: {error}")
        return True
    return False


with subtest("a command's status decides, of every part of it"):
    assert not raises(machine.succeed, "true")
    assert raises(machine.succeed, "false")
    assert raises(machine.succeed, "true", "false")
    assert raises(machine.succeed, "false; true")
    assert raises(machine.succeed, "false | true")
    assert raises(machine.succeed, "echo $unset")
    assert not raises(machine.fail, "false")
    assert raises(machine.fail, "true")
    assert raises(machine.succeed, "sleep 30", timeout=2)

with subtest("what comes back is stdout, as it is"):
    assert machine.succeed("echo out; echo err >&2") == "out\n"
    assert machine.succeed("printf 'a\\n\\nb'", "printf c") == "a\n\nbc"
    assert machine.execute("exit 7") == (7, "")
    assert machine.succeed("head -c 300000 /dev/zero | tr '\\0' x") == "x" * 300000

with subtest("waiting ends, well or badly"):
    assert not raises(machine.wait_until_succeeds, "true", timeout=5)
    assert raises(machine.wait_until_succeeds, "false", timeout=3)
    assert raises(machine.wait_until_fails, "true", timeout=3)
    assert raises(machine.wait_for_open_port, 9, timeout=3)
    assert not raises(machine.wait_for_closed_port, 9, timeout=3)

with subtest("a unit is waited for until it is active, and no longer than it can be"):
    assert not raises(machine.wait_for_unit, "docker.service")
    machine.succeed("systemd-run --unit=ends true", "sleep 1")
    assert raises(machine.wait_for_unit, "ends.service")
    machine.execute("systemd-run --unit=fails false")
    machine.succeed("sleep 1")
    assert raises(machine.wait_for_unit, "fails.service")
    assert raises(machine.require_unit_state, "docker.service", "inactive")
    assert machine.get_unit_property("docker.service", "ActiveState") == "active"

with subtest("what was flushed survives a power cut, and what runs does not"):
    machine.succeed("echo here >/root/flushed", "sync", "echo here >/run/lost")
    machine.succeed("echo here >/root/not-flushed")
    machine.crash()
    machine.start()
    machine.succeed("test -s /root/flushed")
    machine.fail("test -e /run/lost")
    machine.fail("test -s /root/not-flushed")
