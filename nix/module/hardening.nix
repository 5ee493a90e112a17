# The sandbox of the units. The program runs as root and controls Docker, which is
# equivalent to root. The sandbox limits the damage of its own mistakes, and of
# what containers may have written into the trees that it reads.
#
# Protections of `systemd-analyze security` that are missing here, and why:
# - User=, DynamicUser=, PrivateUsers=: the program reads files of every owner,
#   and Docker's socket belongs to root.
# - ProtectProc=, ProcSubset=: /proc/PID/fd shows whether a process has a file of
#   a stopped stack open.
# - RootDirectory=: a stack may be in any directory.
# - RestrictSUIDSGID=: it forbids openat2(2), by which the program avoids
#   following a symlink out of a tree.
# - IPAddressAllow=: mail servers and other channels of news are given by name. Where
#   none is configured, there is no network at all, unless there are hooks on the host.
#
# Borg and restic run in here, too, where archives are handed over; for restic, archives are
# mounted, which needs CAP_SYS_ADMIN.
#
# Hooks on the host run in here, too. For them the sandbox is wider: there is a network,
# the stacks can be written, users and owners can be changed, and memory may be writable
# and executable, which the compilers of scripting languages need.
{ lib }:
let
  paths = import ./paths.nix { inherit lib; };
in
{
  # Paths that the program reads; they must stay visible.
  readPaths,
  # Paths that it writes. Everything else is read-only.
  writePaths,
  # Whether news is sent, by mail or otherwise.
  needsNetwork,
  # Whether it makes archives, and so must see which processes write.
  archives ? false,
  # Whether it unpacks archives, and so makes files of every owner and kind.
  unpacks ? false,
  # Whether programs that the run starts work on repositories of Borg or restic.
  handsOver ? false,
  # Whether it shows archives as directories to them, by FUSE.
  mounts ? false,
  # Whether there are hooks, which are killed when they take too long.
  hooks ? false,
  # Whether any of them runs on the host.
  hostHooks ? false,
  # Whether there are Engines of ordinary users. Docker commands for these are run by
  # their users.
  userEngines ? false,
}:
let
  anyBelow =
    dirs: lib.any (path: lib.any (dir: paths.isBelow dir path) dirs) (readPaths ++ writePaths);
in
{
  ProtectSystem = "strict";
  # The leading "-" ignores a missing directory, which must not keep a stack down.
  ReadWritePaths = map (path: paths.word "-${path}") (lib.unique writePaths);
  # Read-only where a stack is in there; ReadWritePaths has what is written.
  ProtectHome =
    if
      anyBelow [
        "/home"
        "/root"
        "/run/user"
      ]
    then
      "read-only"
    else
      true;
  PrivateTmp =
    !anyBelow [
      "/tmp"
      "/var/tmp"
    ];
  # A drill makes the device nodes of an archive, which PrivateDevices= does not
  # allow. It does not open them.
  PrivateDevices = !(unpacks || mounts);
  DevicePolicy = "closed";
  DeviceAllow =
    lib.optionals unpacks [
      "char-* m"
      "block-* m"
    ]
    ++ lib.optional mounts "/dev/fuse rw";
  PrivateNetwork = !(needsNetwork || hostHooks);
  # What reads an archive does not see the processes of others. A backup must, to find
  # those that write, and whoever ends a hook must see it.
  ProtectProc = if archives || hooks then "default" else "invisible";
  # Nothing is mounted for others.
  PrivateMounts = true;
  # Neither System V IPC nor POSIX message queues are used.
  PrivateIPC = true;
  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;

  NoNewPrivileges = true;
  CapabilityBoundingSet = [
    # The program reads files of every owner without changing their access times,
    # writes a store and a log that may belong to another user, and moves an
    # interrupted restore out of the way.
    "CAP_DAC_READ_SEARCH"
    "CAP_DAC_OVERRIDE"
    "CAP_FOWNER"
  ]
  ++ lib.optionals archives [
    # It reads /proc/PID/fd of every process.
    "CAP_SYS_PTRACE"
    # It lowers its priority while a stack is up, and raises it while one is down.
    "CAP_SYS_NICE"
  ]
  ++ lib.optional hooks "CAP_KILL"
  # Only whoever may mount can show an archive.
  ++ lib.optional mounts "CAP_SYS_ADMIN"
  ++ lib.optionals (hostHooks || userEngines) [
    "CAP_SETUID"
    "CAP_SETGID"
  ]
  ++ lib.optional (unpacks || hostHooks) "CAP_CHOWN"
  ++ lib.optionals unpacks [
    # A change of mode must not lose the set-group-id bit.
    "CAP_FSETID"
    "CAP_SETFCAP"
    "CAP_MKNOD"
  ];
  AmbientCapabilities = "";
  RestrictAddressFamilies = [
    "AF_UNIX"
  ]
  ++ lib.optionals (needsNetwork || hostHooks) [
    "AF_INET"
    "AF_INET6"
  ];
  RestrictNamespaces = true;
  RestrictRealtime = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = !hostHooks;
  SystemCallArchitectures = "native";
  SystemCallErrorNumber = "EPERM";
  SystemCallFilter = [
    "@system-service"
    "~@privileged @resources"
  ]
  # See CAP_SYS_NICE.
  ++ lib.optional archives "setpriority ioprio_set"
  ++ lib.optional (unpacks || hostHooks) "@chown"
  ++ lib.optional mounts "@mount"
  ++ lib.optional (hostHooks || userEngines) "@setuid";
  UMask = "0077";
  # A core dump would hold what was read: passwords, databases.
  LimitCORE = 0;
  # A stack of a million files takes 161 MiB (docs/performance.md). What grows beyond
  # this, such as a reader with a fault, must not take the memory of the services. Borg and
  # restic keep the index of a whole repository in memory.
  MemoryMax = if handsOver then "infinity" else "2G";
}
