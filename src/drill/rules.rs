//! What of a service is copied to a throw-away project: allow lists for fields,
//! capabilities and kernel parameters. A field that has no rule is left out.

use super::shape::Shape;

/// What happens to a field of a service.
pub enum Rule {
    /// It affects only the container itself, and is copied if it has this shape.
    Copy(Shape),
    /// It names a namespace, and is copied if that is one of these: the
    /// container's own, or that of a peer.
    Namespace(&'static [&'static str]),
    /// It is rewritten.
    Rewrite,
    /// It is left out without a note, because no container needs it.
    Unneeded,
}

const HEALTHCHECK: Shape = Shape::Fields(&[
    ("disable", Shape::Scalar),
    ("interval", Shape::Scalar),
    ("retries", Shape::Scalar),
    ("start_interval", Shape::Scalar),
    ("start_period", Shape::Scalar),
    ("test", Shape::Scalars),
    ("timeout", Shape::Scalar),
]);

const ULIMIT: Shape = Shape::AnyOf(&[
    Shape::Scalar,
    Shape::Fields(&[("hard", Shape::Scalar), ("soft", Shape::Scalar)]),
]);

/// The rules, by field. The list of fields is that of the Compose specification:
/// <https://github.com/compose-spec/compose-spec/blob/main/schema/compose-spec.json>
const RULES: &[(&str, Rule)] = &[
    ("attach", Rule::Unneeded),
    // The rest of it names devices of the host.
    (
        "blkio_config",
        Rule::Copy(Shape::Fields(&[("weight", Shape::Scalar)])),
    ),
    ("build", Rule::Unneeded),
    ("cap_add", Rule::Rewrite),
    ("cap_drop", Rule::Copy(Shape::Scalars)),
    ("cgroup", Rule::Namespace(&["private"])),
    ("command", Rule::Copy(Shape::Scalars)),
    ("configs", Rule::Rewrite),
    ("container_name", Rule::Unneeded),
    ("cpu_count", Rule::Copy(Shape::Scalar)),
    ("cpu_percent", Rule::Copy(Shape::Scalar)),
    ("cpu_period", Rule::Copy(Shape::Scalar)),
    ("cpu_quota", Rule::Copy(Shape::Scalar)),
    ("cpu_shares", Rule::Copy(Shape::Scalar)),
    ("cpus", Rule::Copy(Shape::Scalar)),
    ("cpuset", Rule::Copy(Shape::Scalar)),
    ("depends_on", Rule::Rewrite),
    ("deploy", Rule::Rewrite),
    ("develop", Rule::Unneeded),
    ("dns", Rule::Unneeded),
    ("dns_opt", Rule::Copy(Shape::Scalars)),
    ("dns_search", Rule::Copy(Shape::Scalars)),
    // Some programs find their data by the name of their host.
    ("domainname", Rule::Copy(Shape::Scalar)),
    ("entrypoint", Rule::Copy(Shape::Scalars)),
    ("env_file", Rule::Unneeded),
    ("environment", Rule::Rewrite),
    ("expose", Rule::Copy(Shape::Scalars)),
    // These names lead to addresses without a route.
    (
        "extra_hosts",
        Rule::Copy(Shape::AnyOf(&[
            Shape::Each(&Shape::Scalars),
            Shape::Scalars,
        ])),
    ),
    ("group_add", Rule::Copy(Shape::Scalars)),
    ("healthcheck", Rule::Copy(HEALTHCHECK)),
    ("hostname", Rule::Copy(Shape::Scalar)),
    ("image", Rule::Copy(Shape::Scalar)),
    ("init", Rule::Copy(Shape::Scalar)),
    (
        "ipc",
        Rule::Namespace(&["none", "private", "shareable", "service:"]),
    ),
    ("label_file", Rule::Unneeded),
    ("labels", Rule::Unneeded),
    ("links", Rule::Rewrite),
    ("logging", Rule::Unneeded),
    ("mem_limit", Rule::Copy(Shape::Scalar)),
    ("mem_reservation", Rule::Copy(Shape::Scalar)),
    ("mem_swappiness", Rule::Copy(Shape::Scalar)),
    ("memswap_limit", Rule::Copy(Shape::Scalar)),
    // Every other word is the name of a network.
    ("network_mode", Rule::Namespace(&["none", "service:"])),
    ("networks", Rule::Rewrite),
    ("pid", Rule::Namespace(&["service:"])),
    ("pids_limit", Rule::Copy(Shape::Scalar)),
    ("platform", Rule::Copy(Shape::Scalar)),
    ("ports", Rule::Unneeded),
    ("post_start", Rule::Rewrite),
    ("pre_stop", Rule::Unneeded),
    ("profiles", Rule::Unneeded),
    ("pull_policy", Rule::Unneeded),
    ("pull_refresh_after", Rule::Unneeded),
    ("read_only", Rule::Copy(Shape::Scalar)),
    ("restart", Rule::Unneeded),
    ("scale", Rule::Unneeded),
    ("secrets", Rule::Rewrite),
    ("security_opt", Rule::Rewrite),
    ("shm_size", Rule::Copy(Shape::Scalar)),
    ("stdin_open", Rule::Copy(Shape::Scalar)),
    ("stop_grace_period", Rule::Copy(Shape::Scalar)),
    ("stop_signal", Rule::Copy(Shape::Scalar)),
    (
        "storage_opt",
        Rule::Copy(Shape::Fields(&[("size", Shape::Scalar)])),
    ),
    ("sysctls", Rule::Rewrite),
    ("tmpfs", Rule::Copy(Shape::Scalars)),
    ("tty", Rule::Copy(Shape::Scalar)),
    ("ulimits", Rule::Copy(Shape::Each(&ULIMIT))),
    ("user", Rule::Copy(Shape::Scalar)),
    ("volumes", Rule::Rewrite),
    ("volumes_from", Rule::Rewrite),
    ("working_dir", Rule::Copy(Shape::Scalar)),
];

/// Returns the rule for a field of a service.
pub fn rule(field: &str) -> Option<&'static Rule> {
    let mut rules = RULES.iter();
    rules.find_map(|(name, rule)| (*name == field).then_some(rule))
}

/// Capabilities that a container may have: those that the Engine gives to every
/// container, and two that many databases ask for (locked memory and scheduling
/// priority). Any other may lead out of the container: `DAC_READ_SEARCH` to every
/// file of the host, `NET_ADMIN` to addresses of the host's network.
const CAPABILITIES: [&str; 16] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_NICE",
];

/// Returns whether a container may have this capability, as an entry of `cap_add`.
pub fn is_capability(entry: &str) -> bool {
    let name = entry.to_uppercase();
    CAPABILITIES.contains(&name.strip_prefix("CAP_").unwrap_or(&name))
}

/// Returns whether an entry of `security_opt` takes rights away. The others switch
/// protections of the Engine off, or may.
pub fn is_hardening(entry: &str) -> bool {
    matches!(
        entry,
        "no-new-privileges" | "no-new-privileges:true" | "no-new-privileges=true"
    )
}

/// Kernel parameters that belong to a namespace of the container. Those that end
/// with a dot stand for all below. With IPv6, which none of these switches on, a
/// container would have an address by which it reaches the host.
const SYSCTLS: [&str; 14] = [
    "fs.mqueue.",
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shm_rmid_forced",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.unix.max_dgram_qlen",
];

/// Returns whether a container may set this kernel parameter.
pub fn is_sysctl(name: &str) -> bool {
    let is_tcp = name.starts_with("net.ipv4.tcp_");
    is_tcp
        || SYSCTLS.iter().any(|allowed| match allowed.ends_with('.') {
            true => name.starts_with(allowed),
            false => name == *allowed,
        })
}

/// Returns the fields that have a rule.
#[cfg(test)]
pub fn fields() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|(field, _)| *field)
}
