# What NixOS does for one job: units, the configuration file, directories.
{
  lib,
  pkgs,
  json,
  # `services.docker-stack-backup`, of which the jobs share the package and Docker.
  shared,
  # `users.users`.
  users,
  virtualisation,
  # `systemd.services`.
  services,
}:
let
  hardening = import ./hardening.nix { inherit lib; };
  paths = import ./paths.nix { inherit lib; };
  # Name of the file that `LoadCredential=` hands to the program.
  passwordCredential = "smtp-password";

  # Each channel's address is handed over as a credential of this name.
  channelName = channel: if channel.name == null then channel.kind else channel.name;
  channelCredential = channel: "notify-${channelName channel}";
  # So is the passphrase of each repository.
  repositoryName = repository: if repository.name == null then repository.kind else repository.name;
  repositoryCredential = repository: "handover-${repositoryName repository}";

  isSet = value: value != null && value != [ ] && value != { };
  program = lib.getExe shared.package;
  inherit (shared) docker;
  ofContainers = import ./containers.nix {
    inherit
      lib
      virtualisation
      services
      users
      docker
      ;
  };
  # The number of the user whose Engine is at a socket, if it is a user's.
  userOf =
    engine:
    let
      found = builtins.match "unix:///run/user/([0-9]+)/.*" engine;
    in
    if found == null then null else lib.head found;
  isOfUser = engine: engine != null && userOf engine != null;
  podmanSocket = "unix:///run/podman/podman.sock";
  # What must run before the Engine can be asked.
  unitsOf =
    engine:
    if engine == null then
      [ "docker.service" ]
    else if engine == podmanSocket then
      [ "podman.socket" ]
    else if isOfUser engine then
      [ "user@${userOf engine}.service" ]
    else
      [ ];
  # Where the Engine has its volumes.
  dataOf =
    engine:
    if engine == docker.host then
      [ docker.dataRoot ]
    else if engine == podmanSocket then
      [ "/var/lib/containers/storage" ]
    else
      map (user: "${user.home}/.local/share") (
        lib.filter (
          # An Engine that is there without a session.
          user: isOfUser engine && user.linger or false == true && toString user.uid == userOf engine
        ) (lib.attrValues users)
      );
in
# `name` is `null` for the simple form.
{ name, ... }@job:
let
  # In messages.
  path = "services.docker-stack-backup" + lib.optionalString (name != null) ".jobs.${name}";
  # The command comes before the name, so that no job has the units of another.
  unit =
    command:
    if name != null then
      "docker-stack-backup-${command}-${name}"
    else if command == "run" then
      "docker-stack-backup"
    else
      "docker-stack-backup-${command}";
  describe = text: text + lib.optionalString (name != null) " (${name})";

  # Which stacks there are is then known on the machine alone.
  takesAll = job.stacks == "all";
  stacks = map (stack: stack // ofContainers job.defaults.engine stack) (
    lib.sort (a: b: a.order < b.order || a.order == b.order && a.name < b.name) (
      lib.mapAttrsToList (name: stack: stack // { inherit name; }) (if takesAll then { } else job.stacks)
    )
  );

  # The program's configuration file. docs/configuration.md describes its fields.
  settings = lib.recursiveUpdate optionSettings job.settings;
  optionSettings = {
    inherit (job)
      baseDir
      backupDir
      requireMount
      stateDir
      logFile
      metricsFile
      failOnWarning
      ;
    stacks =
      if takesAll then
        "all"
      else
        map (
          stack:
          lib.filterAttrs (_: isSet) (
            removeAttrs stack (
              [
                "order"
                "containers"
                "arion"
                "compose2nix"
                "quadlet"
                "problems"
                "runsContainers"
              ]
              ++ lib.optional (stack.units != [ ]) "path"
            )
          )
        ) stacks;
    defaults = lib.filterAttrs (_: isSet) job.defaults;
    ${if job.ignoreProjects == [ ] then null else "ignoreProjects"} = job.ignoreProjects;
    retention = if job.retention == null then null else lib.filterAttrs (_: isSet) job.retention;
    email =
      if job.email == null then
        null
      else
        lib.filterAttrs (_: isSet) job.email
        // lib.optionalAttrs (job.email.passwordFile != null) { inherit passwordCredential; };
    notify = map (
      channel: lib.filterAttrs (_: isSet) channel // { credential = channelCredential channel; }
    ) job.notify;
    ${if job.handover == [ ] then null else "handover"} = map (
      repository:
      lib.filterAttrs (_: isSet) repository
      // lib.optionalAttrs (repository.passphraseFile != null) {
        credential = repositoryCredential repository;
      }
      // {
        inherit (repository) checkDays;
        ${if repository.retention == null then null else "retention"} = lib.filterAttrs (
          _: isSet
        ) repository.retention;
      }
    ) job.handover;
  };

  uncheckedConfig = json.generate "docker-stack-backup.json" settings;
  # A mistake fails the build, because the program itself checks the file there, and
  # systemd the times.
  checkedConfig =
    pkgs.runCommandLocal "docker-stack-backup-checked.json" { config = uncheckedConfig; }
      ''
        if ! ${program} --config "$config" check; then
          echo "These are the options of ${path}, by their names in $config." >&2
          exit 1
        fi
        ${lib.concatMapStrings (time: ''
          ${pkgs.systemd}/bin/systemd-analyze calendar -- ${lib.escapeShellArg time} >/dev/null || {
            echo "The schedule is not a time as in systemd.time(7): "${lib.escapeShellArg time} >&2
            exit 1
          }
        '') (lib.concatMap (command: lib.toList command.options.schedule) (lib.filter hasTimer timed))}
        cp "$config" "$out"
      '';
  etcName = "docker-stack-backup/" + (if name == null then "config.json" else "jobs/${name}.json");
  exec =
    command: program + lib.optionalString (name != null) " --config /etc/${etcName}" + " " + command;

  engineOf =
    stack:
    if stack.engine != null then
      stack.engine
    else if job.defaults.engine != null then
      job.defaults.engine
    else
      docker.host;
  engines = lib.unique (
    map engineOf (
      # Beside other units there need be no Engine, unless one is named.
      lib.filter (
        stack: stack.units == [ ] || stack.runsContainers || engineOf stack != docker.host
      ) stacks
      ++ lib.optional takesAll { engine = null; }
    )
  );
  dockerUnits = lib.unique (lib.concatMap unitsOf engines);
  engineData = lib.unique (lib.concatMap dataOf engines);
  # A drill starts nothing on the Engine of a user.
  rootData = lib.unique (lib.concatMap dataOf (lib.filter (engine: !isOfUser engine) engines));

  pathsOf = stack: lib.optional (stack.units == [ ]) stack.path ++ stack.includeBinds ++ stack.paths;
  stackPaths = lib.concatMap pathsOf stacks ++ lib.optional takesAll job.baseDir;
  # A recovery takes back the effect of hooks, so every unit needs what they need.
  allHooks = job.defaults.hooks ++ lib.concatMap (stack: stack.hooks) stacks;
  hookNeeds = {
    hooks = allHooks != [ ];
    hostHooks = lib.any (hook: hook.host or false) allHooks;
    userEngines = lib.any isOfUser engines;
  };
  secretFiles = lib.filter (lib.hasPrefix "/") (
    lib.concatMap (item: lib.attrValues (item.secrets or { })) (allHooks ++ job.handover)
  );
  # Repositories on this machine, and whether there are others.
  isLocal = repository: lib.hasPrefix "/" repository.repository;
  localRepositories = map (repository: repository.repository) (lib.filter isLocal job.handover);
  reachesOut = !lib.all isLocal job.handover;
  ofKind = kind: lib.any (repository: repository.kind == kind) job.handover;
  handoverPackages =
    lib.optional (ofKind "borg") pkgs.borgbackup
    ++ lib.optional (ofKind "restic") pkgs.restic
    ++ lib.optional reachesOut pkgs.openssh;
  # Volumes are read as directories. The socket may be below /run/user.
  readPaths =
    stackPaths
    # A stack may be in any of these.
    ++ lib.optionals takesAll [
      "/home"
      "/root"
      "/tmp"
    ]
    ++ engineData
    ++ secretFiles
    ++ map (lib.removePrefix "unix://") (lib.filter (engine: engine != null) engines);
  ownPaths = [
    job.backupDir
    job.stateDir
  ];
  metricsDir = lib.optional (job.metricsFile != null) (dirOf job.metricsFile);
  writePaths =
    ownPaths
    ++ lib.optional (job.logFile != null) (dirOf job.logFile)
    ++ metricsDir
    ++ lib.optionals hookNeeds.hostHooks stackPaths;
  needsNetwork = job.email != null || job.notify != [ ];
  newsUnits = lib.optional needsNetwork "network-online.target";
  withPassphrase = lib.filter (repository: repository.passphraseFile != null) job.handover;
  # The secrets of channels and repositories. A file that is missing keeps no run from
  # starting, but for the password of the mail: the text that stands in for it is no address,
  # and opens no repository.
  credentialsWith =
    repositories:
    {
      LoadCredential =
        lib.optional (
          job.email != null && job.email.passwordFile != null
        ) "${passwordCredential}:${paths.withoutSpecifiers job.email.passwordFile}"
        ++ map (
          channel: "${channelCredential channel}:${paths.withoutSpecifiers channel.urlFile}"
        ) job.notify
        ++ map (
          repository:
          "${repositoryCredential repository}:${paths.withoutSpecifiers repository.passphraseFile}"
        ) repositories;
    }
    // lib.optionalAttrs (job.notify != [ ] || repositories != [ ]) {
      SetCredential =
        map (channel: "${channelCredential channel}:missing") job.notify
        ++ map (repository: "${repositoryCredential repository}:missing") repositories;
    };
  credentials = credentialsWith [ ];

  commonUnit = {
    path = [ docker.package ];
    environment = {
      # Compose expands `~` with HOME, which system units do not have.
      HOME = "/root";
      # The contexts and logins of root's shell must not change what the units do.
      DOCKER_CONFIG = "/var/empty";
    }
    // lib.optionalAttrs (docker.host != null) {
      DOCKER_HOST = paths.withoutSpecifiers docker.host;
    };
    # A system rebuild at night must not end a run.
    restartIfChanged = false;
    wants = dockerUnits ++ newsUnits;
    after = dockerUnits ++ newsUnits;
    documentation = [ "man:docker-stack-backup(1)" ];
    # Nothing else may keep a stack from being started: not the store's disk, not that
    # of another stack.
    unitConfig.RequiresMountsFor = [ (paths.word job.stateDir) ];
  };

  # The commands that a timer starts. `needs` is what the sandbox must allow, `also`
  # what else is in the unit.
  timed = lib.filter (command: command.options.enable) [
    {
      command = "run";
      options = job;
      description = "Back up Docker Compose stacks";
      needs = {
        archives = true;
        # Keys and known hosts of ssh are root's.
        readPaths = readPaths ++ lib.optional reachesOut "/root";
        writePaths = writePaths ++ localRepositories;
        needsNetwork = needsNetwork || reachesOut;
        handsOver = job.handover != [ ];
        mounts = ofKind "restic";
      };
      repositories = withPassphrase;
      also =
        let
          before =
            lib.optional job.inhibitsSleep "${unit "inhibit"}.service"
            ++ lib.optional (reachesOut && !needsNetwork) "network-online.target";
        in
        {
          inherit (job) onSuccess;
          path = commonUnit.path ++ handoverPackages;
          wants = before;
          after = before;
        };
    }
    {
      command = "drill";
      options = job.drill;
      description = "Drill the newest archives of Docker Compose stacks";
      needs = {
        readPaths = readPaths ++ lib.concatMap (stack: stack.drillSecrets) stacks;
        writePaths = writePaths ++ map (data: "${data}/volumes") rootData;
        unpacks = true;
      };
      also.after = afterRun;
    }
    {
      command = "verify";
      options = job.verify;
      description = "Verify the archives of Docker Compose stacks";
      needs = { };
      also.after = afterRun;
    }
  ];
  # If both are due at the same time, the run comes first.
  afterRun = [ "${unit "run"}.service" ];

  service =
    {
      command,
      description,
      needs,
      also,
      # Those whose passphrases it needs.
      repositories ? [ ],
      ...
    }:
    lib.nameValuePair (unit command) (
      commonUnit
      // also
      // {
        description = describe description;
        wants = commonUnit.wants ++ also.wants or [ ];
        after = commonUnit.after ++ also.after or [ ];
        # A disk that does not come up costs its own stacks, and not the report of the
        # others. A store that is not mounted is refused by the program.
        unitConfig = commonUnit.unitConfig // {
          WantsMountsFor = map paths.word ([ job.backupDir ] ++ stackPaths ++ localRepositories);
        };
        # The recover unit may write to the stacks, so it can undo an interrupted restore.
        onFailure = [ "${unit "recover"}.service" ] ++ job.onFailure;
        serviceConfig =
          hardening ({ inherit readPaths writePaths needsNetwork; } // hookNeeds // needs)
          // {
            Type = "oneshot";
            ExecStart = exec command;
            # systemd runs this after a crash, a kill or an out-of-memory kill too: no
            # stack stays down, and nothing of a drill is left.
            ExecStopPost = exec "recover";
            # Only the program gets SIGTERM; a running `docker` command must complete.
            KillMode = "mixed";
            # Time to start the stack that is down and to wait until it is healthy.
            TimeoutStopSec = "15min";
            # The program has limits of its own; this one is for what they do not see. The
            # stack that is down is then started, as after `systemctl stop`.
            TimeoutStartSec = "1d";
          }
          // credentialsWith repositories;
      }
    );

  # Started at boot, and after a run or a drill that failed.
  recover = commonUnit // {
    description = describe "Start the stacks that an interrupted backup left stopped";
    wantedBy = [ "multi-user.target" ];
    # It is tried again, because Docker may not be ready yet or a stack not healthy.
    startLimitIntervalSec = 3600;
    startLimitBurst = 10;
    serviceConfig =
      hardening (
        hookNeeds
        // {
          inherit readPaths;
          # An interrupted restore is undone beside the directories that it replaces.
          writePaths = writePaths ++ map dirOf stackPaths ++ engineData ++ lib.optional takesAll "/";
          # The password is read from the file itself. With `LoadCredential=` a
          # missing file would keep this unit, and so the stacks, from starting;
          # without it only the mail is not sent.
          inherit needsNetwork;
        }
      )
      // {
        Type = "oneshot";
        ExecStart = exec "recover";
        # Status 2: every stack is up, but something else failed, such as the mail.
        SuccessExitStatus = 2;
        Restart = "on-failure";
        RestartSec = 30;
        KillMode = "mixed";
      };
  };

  # Sends what a run could not send: a mail server that greylists, a network that is
  # down at night.
  send = {
    description = describe "Send the news of backups that could not be sent before";
    inherit (commonUnit) documentation restartIfChanged;
    wants = newsUnits;
    after = newsUnits;
    unitConfig = commonUnit.unitConfig // {
      ConditionDirectoryNotEmpty = paths.withoutSpecifiers "${job.stateDir}/news";
    };
    serviceConfig =
      hardening {
        inherit needsNetwork;
        readPaths = [ ];
        writePaths = [ job.stateDir ] ++ metricsDir;
      }
      // {
        Type = "oneshot";
        ExecStart = exec "report --send-queued";
        # Status 2: something is still waiting, and is tried again.
        SuccessExitStatus = 2;
        TimeoutStartSec = "1h";
      }
      // credentials;
  };
  sendTimer = {
    description = describe "Send the news of backups that could not be sent before";
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnCalendar = "*:0/15";
      RandomizedDelaySec = "2min";
    };
  };

  # Beside the run and not around it: systemd must signal the program itself.
  inhibit = {
    description = describe "Keep the machine awake during a backup";
    unitConfig.StopWhenUnneeded = true;
    serviceConfig = {
      ExecStart = "${pkgs.systemd}/bin/systemd-inhibit --what=sleep --who=docker-stack-backup --why=\"Docker stacks are being backed up\" ${pkgs.coreutils}/bin/sleep infinity";
      ProtectSystem = "strict";
      ProtectHome = true;
      PrivateNetwork = true;
      CapabilityBoundingSet = "";
    };
  };

  hasTimer = { options, ... }: isSet options.schedule;
  timer =
    {
      command,
      description,
      options,
      ...
    }:
    lib.nameValuePair (unit command) {
      description = describe description;
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = options.schedule;
        Persistent = options.persistent;
        RandomizedDelaySec = options.randomizedDelaySec;
      }
      // options.timerConfig;
    };
in
{
  inherit
    name
    path
    takesAll
    engines
    etcName
    handoverPackages
    ;
  stacks = map (stack: stack // { allPaths = pathsOf stack; }) stacks;
  inherit (job) backupDir stateDir logFile;
  runUnit = "${unit "run"}.service";

  services =
    lib.listToAttrs (map service timed)
    // {
      ${unit "recover"} = recover;
    }
    // lib.optionalAttrs job.inhibitsSleep { ${unit "inhibit"} = inhibit; }
    // lib.optionalAttrs needsNetwork { ${unit "send"} = send; };

  timers =
    lib.listToAttrs (map timer (lib.filter hasTimer timed))
    // lib.optionalAttrs needsNetwork { ${unit "send"} = sendTimer; };

  etc.${etcName}.source = if shared.checkConfig then checkedConfig else uncheckedConfig;

  tmpfiles = lib.genAttrs (map paths.withoutSpecifiers ownPaths) (_: {
    # ":" keeps the mode and the owner of a directory that exists already.
    d = {
      mode = ":0700";
      user = ":root";
      group = ":root";
    };
  });

  assertions = [
    {
      assertion = takesAll || stacks != [ ];
      message = ''
        ${path}.stacks is empty: there is nothing to back up. Name the stacks, for
        example `stacks = [ "web" ];` for ${job.baseDir}/web.
      '';
    }
    {
      assertion = name == null || builtins.match "[[:alnum:]_][[:alnum:]_.-]*" name != null;
      message = ''
        ${path}: the name goes into those of units and files. Use letters, digits, `_`,
        `.` and `-` only.
      '';
    }
    {
      assertion = job.email == null || job.email.to != [ ];
      message = ''
        ${path}.email.to is empty: name at least one recipient, or set ${path}.email = null
        to send no mail.
      '';
    }
    {
      assertion = job.email == null || (job.email.user == null) == (job.email.passwordFile == null);
      message = ''
        ${path}.email: `user` and `passwordFile` go together; only one of them is set.
      '';
    }
  ]
  ++ lib.concatMap (stack: [
    {
      assertion = stack.problems == [ ];
      message = "${path}.stacks.${stack.name}: ${lib.concatStringsSep " " stack.problems}";
    }
    {
      assertion = stack.units == [ ] || stack.paths != [ ];
      message = ''
        ${path}.stacks.${stack.name} has units and no paths, so there is nothing to archive. Name
        the directories that the units write to in `paths`.
      '';
    }
    {
      assertion = stack.units == [ ] || stack.path == "${job.baseDir}/${stack.name}";
      message = ''
        ${path}.stacks.${stack.name} has units and a `path`, which is the directory of a compose
        file. Name the directories in `paths`.
      '';
    }
  ]) stacks
  ++ lib.mapAttrsToList (directory: same: {
    # One directory may hold several Compose projects.
    assertion =
      lib.length same == 1 || lib.all (stack: stack.project != null || stack.files != [ ]) same;
    message = ''
      ${path}.stacks: ${
        lib.concatMapStringsSep " and " (stack: "\"${stack.name}\"") same
      } have the same path ${directory}. Give each its own `path`, or its `project` where
      one directory holds several projects.
    '';
  }) (lib.groupBy (stack: stack.path) (lib.filter (stack: stack.units == [ ]) stacks));

  warnings =
    lib.optional
      (
        job.email != null
        && job.email.when != "always"
        && job.onFailure == [ ]
        && isSet job.schedule
        && !lib.any (channel: channel.kind == "healthchecks" || channel.kind == "uptime-kuma") job.notify
      )
      ''
        ${path}.email.when is "${job.email.when}": if the mail itself cannot be delivered,
        nobody learns of a failed backup. Set ${path}.onFailure as well, a monitor in
        ${path}.notify, or "always".
      '';
}
