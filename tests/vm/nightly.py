start_all()
machine.succeed("/etc/dsb-test/prepare")
