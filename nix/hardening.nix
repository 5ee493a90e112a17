# The sandbox of the units. The program is root and talks to Docker, which is as
# good as root; the sandbox is for its mistakes and for what the trees that it
# reads may do to it, since containers write those.
#
# Lines of `systemd-analyze security` that are not here, and why:
# - User=, DynamicUser=, PrivateUsers=: files of every owner are read, and
#   Docker's socket is root's.
# - ProtectProc=, ProcSubset=: whether a process has a file of a stopped stack
#   open is seen in its /proc/PID/fd.
# - RootDirectory=: a stack may be anywhere.
# - RestrictSUIDSGID=: it forbids openat2(2), which keeps the program from being
#   led out of a tree through a symlink.
# - IPAddressAllow=: a mail server is given by name, and Docker may be reached
#   by TCP. Where neither is configured, there is no network at all.
{ lib }:
{
  # What the program reads: decides on what must stay visible.
  readPaths,
  # What it writes. Everything else is read-only.
  writePaths,
  # Mail, or Docker by TCP or SSH.
  needsNetwork,
  # Whether it makes archives: has to see that nothing writes meanwhile.
  archives ? false,
  # Whether it unpacks them: makes files of every owner and kind.
  unpacks ? false,
}:
let
  isBelow = dir: path: path == dir || lib.hasPrefix "${dir}/" path;
  anyBelow = dirs: lib.any (path: lib.any (dir: isBelow dir path) dirs) (readPaths ++ writePaths);
in
{
  ProtectSystem = "strict";
  # A leading "-": a directory that does not exist must not keep a stack down.
  ReadWritePaths = map (path: "-${path}") (lib.unique writePaths);
  # Mounted read-only where a stack is there: what is written is in ReadWritePaths.
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
  # Device nodes of an archive are made, which PrivateDevices= does not allow, and
  # not opened.
  PrivateDevices = !unpacks;
  DevicePolicy = "closed";
  DeviceAllow = lib.optionals unpacks [
    "char-* m"
    "block-* m"
  ];
  PrivateNetwork = !needsNetwork;
  # Nothing of System V IPC or POSIX message queues is used.
  PrivateIPC = true;
  ProtectClock = true;
  ProtectControlGroups = true;
  ProtectHostname = true;
  ProtectKernelLogs = true;
  ProtectKernelModules = true;
  ProtectKernelTunables = true;

  NoNewPrivileges = true;
  CapabilityBoundingSet = [
    # Files of every owner are read, without changing their access times;
    # the store and the log may belong to another user; an interrupted restore
    # is moved out of the way.
    "CAP_DAC_READ_SEARCH"
    "CAP_DAC_OVERRIDE"
    "CAP_FOWNER"
  ]
  ++ lib.optionals archives [
    # Reads /proc/PID/fd of every process.
    "CAP_SYS_PTRACE"
    # Gives way while a stack is up, and no longer when it is down.
    "CAP_SYS_NICE"
  ]
  ++ lib.optionals unpacks [
    "CAP_CHOWN"
    # A change of mode does not lose the set-group-id bit.
    "CAP_FSETID"
    "CAP_SETFCAP"
    "CAP_MKNOD"
  ];
  AmbientCapabilities = "";
  RestrictAddressFamilies = [
    "AF_UNIX"
  ]
  ++ lib.optionals needsNetwork [
    "AF_INET"
    "AF_INET6"
  ];
  RestrictNamespaces = true;
  RestrictRealtime = true;
  LockPersonality = true;
  MemoryDenyWriteExecute = true;
  SystemCallArchitectures = "native";
  SystemCallErrorNumber = "EPERM";
  SystemCallFilter = [
    "@system-service"
    "~@privileged @resources"
  ]
  # See CAP_SYS_NICE.
  ++ lib.optional archives "setpriority ioprio_set"
  ++ lib.optional unpacks "@chown";
  UMask = "0077";
}
