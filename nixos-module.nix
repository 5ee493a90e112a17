{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;

  cfg = config.services.docker-stack-backup;
  options = import ./nix/stack-options.nix { inherit lib; };
  hardening = import ./nix/hardening.nix { inherit lib; };
  paths = import ./nix/paths.nix { inherit lib; };
  json = pkgs.formats.json { };

  # Name of the file that `LoadCredential=` hands to the program.
  passwordCredential = "smtp-password";

  isSet = value: value != null && value != [ ] && value != { };
  stacks = lib.sort (a: b: a.order < b.order || a.order == b.order && a.name < b.name) (
    lib.mapAttrsToList (name: stack: stack // { inherit name; }) cfg.stacks
  );

  # The program's configuration file. docs/configuration.md describes its fields.
  settings = lib.recursiveUpdate optionSettings cfg.settings;
  optionSettings = {
    inherit (cfg)
      baseDir
      backupDir
      requireMount
      stateDir
      logFile
      ;
    stacks = map (stack: lib.filterAttrs (_: isSet) (removeAttrs stack [ "order" ])) stacks;
    defaults = lib.filterAttrs (_: isSet) cfg.defaults;
    retention = if cfg.retention == null then null else lib.filterAttrs (_: isSet) cfg.retention;
    email =
      if cfg.email == null then
        null
      else
        lib.filterAttrs (_: isSet) cfg.email
        // lib.optionalAttrs (cfg.email.passwordFile != null) { inherit passwordCredential; };
  };

  uncheckedConfig = json.generate "docker-stack-backup.json" settings;
  # A mistake fails the build, because the program itself checks the file there, and
  # systemd the times.
  checkedConfig =
    pkgs.runCommandLocal "docker-stack-backup-checked.json" { config = uncheckedConfig; }
      ''
        if ! ${lib.getExe cfg.package} --config "$config" check; then
          echo "These are the options of services.docker-stack-backup, by their names in $config." >&2
          exit 1
        fi
        ${lib.concatMapStrings (time: ''
          ${pkgs.systemd}/bin/systemd-analyze calendar -- ${lib.escapeShellArg time} >/dev/null || {
            echo "The schedule is not a time as in systemd.time(7): "${lib.escapeShellArg time} >&2
            exit 1
          }
        '') schedules}
        cp "$config" "$out"
      '';
  configFile = if cfg.checkConfig then checkedConfig else uncheckedConfig;

  # The command for the administrator's shell uses the same Docker as the units.
  wrapper = pkgs.symlinkJoin {
    inherit (cfg.package) name;
    paths = [ cfg.package ];
    nativeBuildInputs = [ pkgs.makeWrapper ];
    postBuild = ''
      wrapProgram $out/bin/docker-stack-backup \
        --prefix PATH : ${lib.makeBinPath [ cfg.docker.package ]} ${
          lib.optionalString (
            cfg.docker.host != null
          ) "--set-default DOCKER_HOST ${lib.escapeShellArg cfg.docker.host}"
        }
    '';
  };

  schedules = lib.concatMap (options: lib.toList options.schedule) (
    lib.filter (options: hasTimer options) [
      cfg
      cfg.drill
      cfg.verify
    ]
  );
  hasTimer = options: isSet options.schedule && options.enable;

  stackPaths = lib.concatMap (stack: [ stack.path ] ++ stack.includeBinds) stacks;
  # A recovery takes back the effect of hooks, so every unit needs what they need.
  allHooks = cfg.defaults.hooks ++ lib.concatMap (stack: stack.hooks) stacks;
  hookNeeds = {
    hooks = allHooks != [ ];
    hostHooks = lib.any (hook: hook.host or false) allHooks;
  };
  secretFiles = lib.filter (lib.hasPrefix "/") (
    lib.concatMap (hook: lib.attrValues (hook.secrets or { })) allHooks
  );
  # Volumes are read as directories. The socket may be below /run/user.
  readPaths =
    stackPaths
    ++ [ dataRoot ]
    ++ secretFiles
    ++ lib.optional (cfg.docker.host != null) (lib.removePrefix "unix://" cfg.docker.host);
  ownPaths = [
    cfg.backupDir
    cfg.stateDir
  ];
  writePaths =
    ownPaths
    ++ lib.optional (cfg.logFile != null) (dirOf cfg.logFile)
    ++ lib.optionals hookNeeds.hostHooks stackPaths;
  dockerUnits = lib.optional (cfg.docker.host == null) "docker.service";
  dataRoot =
    let
      inherit (config.virtualisation) docker;
      option = builtins.match "(.*[[:space:]])?(--data-root|-g)[[:space:]=]+\"?([^[:space:]\"]+).*" (
        docker.extraOptions or ""
      );
    in
    paths.normalize (
      docker.daemon.settings.data-root
        or (if option == null then "/var/lib/docker" else lib.elemAt option 2)
    );
  needsNetwork = cfg.email != null;
  mailUnits = lib.optional (cfg.email != null) "network-online.target";
  inherit (paths) isBelow;

  commonUnit = {
    path = [ cfg.docker.package ];
    environment = {
      # Compose expands `~` with HOME, which system units do not have.
      HOME = "/root";
      # The contexts and logins of root's shell must not change what the units do.
      DOCKER_CONFIG = "/var/empty";
    }
    // lib.optionalAttrs (cfg.docker.host != null) {
      DOCKER_HOST = paths.withoutSpecifiers cfg.docker.host;
    };
    # A system rebuild at night must not end a run.
    restartIfChanged = false;
    wants = dockerUnits;
    after = dockerUnits;
    documentation = [ "man:docker-stack-backup(1)" ];
    # Nothing else may keep a stack from being started: not the store's disk, not that
    # of another stack.
    unitConfig.RequiresMountsFor = [ (paths.word cfg.stateDir) ];
  };

  # A service that a timer starts: one command of the program. `needs` says what
  # its sandbox must allow.
  job =
    command: needs:
    lib.recursiveUpdate commonUnit {
      wants = dockerUnits ++ mailUnits;
      after = dockerUnits ++ mailUnits;
      # A disk that does not come up costs its own stacks, and not the report of the
      # others. A store that is not mounted is refused by the program.
      unitConfig.WantsMountsFor = map paths.word ([ cfg.backupDir ] ++ stackPaths);
      # The recover unit may write to the stacks, so it can undo an interrupted restore.
      onFailure = [ "docker-stack-backup-recover.service" ] ++ cfg.onFailure;
      serviceConfig =
        hardening (
          {
            inherit readPaths writePaths needsNetwork;
          }
          // hookNeeds
          // needs
        )
        // {
          Type = "oneshot";
          ExecStart = "${lib.getExe cfg.package} ${command}";
          # systemd runs this after a crash, a kill or an out-of-memory kill too: no
          # stack stays down, and nothing of a drill is left.
          ExecStopPost = "${lib.getExe cfg.package} recover";
          LoadCredential = lib.optional (
            cfg.email != null && cfg.email.passwordFile != null
          ) "${passwordCredential}:${paths.withoutSpecifiers cfg.email.passwordFile}";
          # Only the program gets SIGTERM; a running `docker` command must complete.
          KillMode = "mixed";
          # Time to start the stack that is down and to wait until it is healthy.
          TimeoutStopSec = "15min";
          # The program has limits of its own; this one is for what they do not see. The
          # stack that is down is then started, as after `systemctl stop`.
          TimeoutStartSec = "1d";
        };
    };

  # The options of a timer.
  timerOptions =
    {
      path,
      what,
      schedule,
      example,
    }:
    {
      schedule = mkOption {
        type = types.nullOr (types.either types.str (types.listOf types.str));
        default = schedule;
        description = ''
          When to ${what}, as in {manpage}`systemd.time(7)`; `null` for no timer.
        '';
        inherit example;
      };

      persistent = mkOption {
        type = types.bool;
        default = true;
        description = "Whether to make up at boot for a ${what} that was missed while the machine was off.";
        example = false;
      };

      randomizedDelaySec = mkOption {
        type = types.str;
        default = "0";
        description = "Start later than {option}`${path}.schedule` by a random time of up to this.";
        example = "30min";
      };

      timerConfig = mkOption {
        type = types.attrsOf types.anything;
        default = { };
        description = ''
          Further settings of the timer, as in {manpage}`systemd.timer(5)`. They
          replace those that the other options make.
        '';
        example = {
          WakeSystem = true;
        };
      };
    };

  timer =
    description: options:
    lib.mkIf (hasTimer options) {
      inherit description;
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = options.schedule;
        Persistent = options.persistent;
        RandomizedDelaySec = options.randomizedDelaySec;
      }
      // options.timerConfig;
    };

  # A list of names, or options by name. Lists of several modules become one, in the
  # order that `mkBefore` and `mkAfter` give them.
  stacksType =
    let
      byName = types.attrsOf (types.submodule (options.stack { inherit (cfg) baseDir; }));
      fromNames =
        names:
        let
          twice = lib.filter (name: lib.count (other: other == name) names > 1) names;
        in
        if twice != [ ] then
          throw "services.docker-stack-backup.stacks: \"${lib.head twice}\" is there twice"
        else
          lib.listToAttrs (
            lib.imap1 (place: name: lib.nameValuePair name { order = lib.mkDefault place; }) names
          );
    in
    lib.mkOptionType {
      name = "stacks";
      description = "list of string or ${byName.description}";
      inherit (byName) emptyValue getSubOptions;
      check = value: byName.check value || (types.listOf types.str).check value;
      merge =
        loc: defs:
        let
          kinds = lib.partition (def: lib.isList def.value) defs;
          named = lib.optional (kinds.right != [ ]) {
            inherit (lib.head kinds.right) file;
            value = fromNames (lib.concatMap (def: def.value) kinds.right);
          };
        in
        byName.merge loc (named ++ kinds.wrong);
    };
in
{
  options.services.docker-stack-backup = {
    enable = lib.mkEnableOption "backups of Docker Compose stacks";

    package = lib.mkPackageOption pkgs "docker-stack-backup" { };

    stacks = mkOption {
      type = stacksType;
      default = { };
      description = ''
        The stacks to back up, one after another. Either a list of directories in
        {option}`services.docker-stack-backup.baseDir`, by name, which are backed up
        in this order; or an attribute set with options for each stack. Lists of
        several modules are joined.
      '';
      example = lib.literalExpression ''
        {
          db.order = 1;
          immich = {
            path = "/srv/immich";
            exclude = [ "cache/" ];
            stopTimeout = 60;
          };
        }
      '';
    };

    defaults = mkOption {
      type = types.submodule { options = options.sharedOptions; };
      default = { };
      description = ''
        Options for all stacks that do not set them. The lists `exclude`,
        `excludeVolumes`, `includeVolumes`, `ignoreBinds`, `unshared` and `hooks` are
        added to those of each stack.
      '';
      example = {
        exclude = [ "*.tmp" ];
        startTimeout = 300;
      };
    };

    baseDir = mkOption {
      type = options.absolutePath;
      apply = options.asString;
      default = "/opt/stacks";
      description = "Directory that holds the stacks without a `path`.";
      example = "/srv/stacks";
    };

    backupDir = mkOption {
      type = options.absolutePath;
      apply = options.asString;
      default = "/var/backups/docker";
      description = ''
        Directory of the archives: `<backupDir>/<stack>/<stack>_<YYYYMMDD>_<HHMMSS>.tar`.
        If it does not exist, it is created with access for root only.
      '';
      example = "/mnt/backup/docker";
    };

    stateDir = mkOption {
      type = options.absolutePath;
      apply = options.asString;
      default = "/var/lib/docker-stack-backup";
      description = ''
        Directory of the journal of stopped stacks, the lock and the outcome of the
        last run. It must survive a reboot.
      '';
      example = "/persist/docker-stack-backup";
    };

    requireMount = options.optional options.absolutePath {
      apply = options.asString;
      description = ''
        A directory that must be a mount point, with {option}`backupDir` on what is
        mounted there. A run refuses to start otherwise. The store that a run has
        used once is recognised without this option.
      '';
      example = "/mnt/backup";
    };

    logFile = options.optional options.absolutePath {
      apply = options.asString;
      description = ''
        File that log lines are appended to, beside the systemd journal. It is rotated
        every month, where {option}`services.logrotate` is enabled.
      '';
      example = "/var/log/docker-backup.log";
    };

    retention =
      let
        rule =
          description: example:
          options.optional types.ints.unsigned {
            inherit description example;
          };
      in
      mkOption {
        type = types.nullOr (
          types.submodule {
            options = {
              keepDays = rule ''
                Keep archives that are younger than this many days. It is 28 if no rule is set.
              '' 14;
              keepLast = rule "Keep this many of the newest archives." 3;
              keepDaily = rule "Keep the newest archive of each of this many last days that have one." 7;
              keepWeekly = rule "Keep the newest archive of each of this many last weeks that have one." 4;
              keepMonthly = rule "Keep the newest archive of each of this many last months that have one." 12;
              keepYearly = rule "Keep the newest archive of each of this many last years that have one." 3;
            };
          }
        );
        default = { };
        description = ''
          How long archives are kept. An archive is kept if any rule keeps it. The
          newest good archive is always kept. `null` keeps everything.
        '';
        example = {
          keepDaily = 7;
          keepWeekly = 4;
          keepMonthly = 12;
        };
      };

    email = mkOption {
      type = types.nullOr (
        types.submodule {
          options = {
            host = mkOption {
              type = types.str;
              description = "SMTP server, by the name in its certificate.";
              example = "mail.example.org";
            };
            port = options.optional types.port {
              description = ''
                `null` means 587 for `starttls`, 465 for `tls`, 25 for `none`.
              '';
              example = 2525;
            };
            encryption = mkOption {
              type = types.enum [
                "starttls"
                "tls"
                "none"
              ];
              default = "starttls";
              description = ''
                `starttls` upgrades a plain connection, and sends nothing where
                that is not possible. `tls` encrypts from the first byte. `none`
                with a user is refused unless the server is this host.
              '';
              example = "tls";
            };
            user = options.optional types.str {
              description = "User to log in as; `null` does not log in.";
              example = "backup@example.org";
            };
            passwordFile =
              options.optional
                (types.pathWith {
                  absolute = true;
                  inStore = false;
                })
                {
                  description = ''
                    File with the password of {option}`user`. systemd reads it
                    (`LoadCredential=`), so only root needs access. It cannot be in
                    the Nix store, which everybody can read.
                  '';
                  example = "/run/secrets/smtp-password";
                };
            caFile = options.optional options.absolutePath {
              description = "PEM file with certificates to trust in addition to the system's.";
              example = "/etc/ssl/my-ca.pem";
            };
            from = mkOption {
              type = types.str;
              description = "Sender's address.";
              example = "Backup <backup@example.org>";
            };
            to = mkOption {
              type = types.listOf types.str;
              description = "Recipients' addresses.";
              example = [ "admin@example.org" ];
            };
            subjectTag = mkOption {
              type = types.str;
              default = "docker-backup";
              description = "Text in brackets at the start of the subject.";
              example = "nas";
            };
            when = mkOption {
              type = types.enum [
                "always"
                "failure"
              ];
              default = "always";
              description = "`always` mails every report; `failure` only reports that contain a failure or a warning.";
              example = "failure";
            };
            timeout = mkOption {
              type = types.ints.positive;
              default = 60;
              description = "Time limit in seconds for each step of the SMTP session.";
              example = 120;
            };
          };
        }
      );
      default = null;
      description = "How to mail the report of each run; `null` sends no mail.";
      example = lib.literalExpression ''
        {
          host = "mail.example.org";
          user = "backup@example.org";
          passwordFile = config.age.secrets.smtp.path;
          from = "backup@example.org";
          to = [ "admin@example.org" ];
        }
      '';
    };

    inherit
      (timerOptions {
        path = "services.docker-stack-backup";
        what = "run";
        schedule = "03:00";
        example = "Sun 04:30";
      })
      schedule
      persistent
      randomizedDelaySec
      timerConfig
      ;

    drill =
      timerOptions {
        path = "services.docker-stack-backup.drill";
        what = "drill";
        schedule = "*-*-01 05:00";
        example = "Sun 05:00";
      }
      // {
        enable = lib.mkEnableOption "drills, which start the newest archive of each stack as a throw-away project and check that it becomes healthy";
      };

    verify =
      timerOptions {
        path = "services.docker-stack-backup.verify";
        what = "verification";
        schedule = "*-*-15 05:00";
        example = "Sun 06:00";
      }
      // {
        enable = lib.mkEnableOption "verification, which reads all archives back and compares them with their checksums";
      };

    inhibitsSleep = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the machine does not go to sleep during a run.";
      example = true;
    };

    settings = mkOption {
      inherit (json) type;
      default = { };
      description = ''
        Fields of the program's configuration file, by their names in
        docs/configuration.md, for what has no option here. They replace what the
        options make; a list is replaced as a whole.
      '';
      example = {
        defaults.verify = "full";
      };
    };

    onSuccess = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = ''
        Units to start after a run without a failure, such as a job that copies the
        archives to another place.
      '';
      example = [ "borgbackup-job-stacks.service" ];
    };

    onFailure = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Units to start after a run or a drill with a failure.";
      example = [ "notify-admin.service" ];
    };

    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = lib.literalMD "`true`, unless the package cannot run on the machine that builds";
      description = ''
        Whether the program checks its configuration when the system is built. A
        mistake then fails the build instead of the nightly run.
      '';
      example = false;
    };

    docker = {
      package = mkOption {
        type = types.package;
        default = config.virtualisation.docker.package;
        defaultText = lib.literalExpression "config.virtualisation.docker.package";
        description = "Package of the `docker` command. It must have Compose 2.20 or newer.";
        example = lib.literalExpression "pkgs.docker_29";
      };

      host = options.optional types.str {
        description = ''
          Socket of another Docker Engine than the system's, as in `DOCKER_HOST`,
          such as that of a rootless one. The Engine must run on this machine,
          because the data is read from this machine's file systems.
        '';
        example = "unix:///run/user/1000/docker.sock";
      };
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.stacks != { };
        message = ''
          services.docker-stack-backup.stacks is empty: there is nothing to back up.
          Name the stacks, for example `stacks = [ "web" ];` for ${cfg.baseDir}/web.
        '';
      }
      {
        assertion = cfg.docker.host != null || config.virtualisation.docker.enable;
        message = ''
          services.docker-stack-backup needs a Docker Engine: set
          virtualisation.docker.enable = true, or point
          services.docker-stack-backup.docker.host at the socket of one.
        '';
      }
      {
        assertion = cfg.docker.host == null || lib.hasPrefix "unix:///" cfg.docker.host;
        message = ''
          services.docker-stack-backup.docker.host is ${toString cfg.docker.host}, which is not
          a socket of this machine (unix:///PATH). Data is read from this machine's file
          systems, so an Engine on another machine cannot be backed up from here.
        '';
      }
      {
        assertion = lib.getName cfg.docker.package != "podman";
        message = ''
          services.docker-stack-backup.docker.package is Podman, which is not supported:
          containers are found, stopped and started in order by the labels that Docker
          Compose gives them on a Docker Engine. Use pkgs.docker.
        '';
      }
      {
        assertion = cfg.email == null || cfg.email.to != [ ];
        message = ''
          services.docker-stack-backup.email.to is empty: name at least one recipient,
          or set services.docker-stack-backup.email = null to send no mail.
        '';
      }
      {
        assertion = cfg.email == null || (cfg.email.user == null) == (cfg.email.passwordFile == null);
        message = ''
          services.docker-stack-backup.email: `user` and `passwordFile` go together; only
          one of them is set.
        '';
      }
    ]
    ++ map (stack: {
      assertion =
        !lib.any (source: isBelow source cfg.backupDir || isBelow cfg.backupDir source) (
          [ stack.path ] ++ stack.includeBinds
        );
      message = ''
        services.docker-stack-backup.backupDir (${cfg.backupDir}) lies within what the
        stack "${stack.name}" archives (${stack.path}), or holds it, so archives would
        contain archives. Choose a directory outside of the stack that holds no stack.
      '';
    }) stacks
    ++ lib.mapAttrsToList (path: same: {
      # One directory may hold several Compose projects.
      assertion =
        lib.length same == 1 || lib.all (stack: stack.project != null || stack.files != [ ]) same;
      message = ''
        services.docker-stack-backup.stacks: ${
          lib.concatMapStringsSep " and " (stack: "\"${stack.name}\"") same
        } have the same path ${path}. Give each its own `path`, or its `project` where
        one directory holds several projects.
      '';
    }) (lib.groupBy (stack: stack.path) stacks);

    warnings =
      lib.optional
        (cfg.email != null && cfg.email.when == "failure" && cfg.onFailure == [ ] && cfg.schedule != null)
        ''
          services.docker-stack-backup.email.when is "failure": if the mail itself cannot be
          delivered, nobody learns of a failed backup. Set
          services.docker-stack-backup.onFailure as well, or "always".
        '';

    environment.systemPackages = [ wrapper ];
    environment.etc."docker-stack-backup/config.json".source = configFile;

    systemd.tmpfiles.settings."10-docker-stack-backup" =
      lib.genAttrs (map paths.withoutSpecifiers ownPaths)
        (_: {
          # ":" keeps the mode and the owner of a directory that exists already.
          d = {
            mode = ":0700";
            user = ":root";
            group = ":root";
          };
        });

    systemd.services.docker-stack-backup =
      let
        run = job "run" { archives = true; };
        inhibitor = lib.optional cfg.inhibitsSleep "docker-stack-backup-inhibit.service";
      in
      run
      // {
        description = "Back up Docker Compose stacks";
        inherit (cfg) onSuccess;
        wants = run.wants ++ inhibitor;
        after = run.after ++ inhibitor;
      };

    # Beside the run and not around it: systemd must signal the program itself.
    systemd.services.docker-stack-backup-inhibit = lib.mkIf cfg.inhibitsSleep {
      description = "Keep the machine awake during a backup";
      unitConfig.StopWhenUnneeded = true;
      serviceConfig = {
        ExecStart = "${pkgs.systemd}/bin/systemd-inhibit --what=sleep --who=docker-stack-backup --why=\"Docker stacks are being backed up\" ${pkgs.coreutils}/bin/sleep infinity";
        ProtectSystem = "strict";
        ProtectHome = true;
        PrivateNetwork = true;
        CapabilityBoundingSet = "";
      };
    };

    # What a run has stopped is not pruned.
    systemd.services.docker-prune = lib.mkIf (config.virtualisation.docker.autoPrune.enable or false) {
      after = [ "docker-stack-backup.service" ];
    };

    services.logrotate.settings.docker-stack-backup = lib.mkIf (cfg.logFile != null) {
      files = cfg.logFile;
      frequency = "monthly";
      rotate = 12;
      compress = true;
      missingok = true;
      notifempty = true;
    };

    systemd.services.docker-stack-backup-verify = lib.mkIf cfg.verify.enable (
      let
        verify = job "verify" { };
      in
      verify
      // {
        description = "Verify the archives of Docker Compose stacks";
        after = verify.after ++ [ "docker-stack-backup.service" ];
      }
    );

    systemd.services.docker-stack-backup-drill = lib.mkIf cfg.drill.enable (
      let
        drill = job "drill" {
          readPaths = readPaths ++ lib.concatMap (stack: stack.drillSecrets) stacks;
          writePaths = writePaths ++ [ "${dataRoot}/volumes" ];
          unpacks = true;
        };
      in
      drill
      // {
        description = "Drill the newest archives of Docker Compose stacks";
        # If a run and a drill are due at the same time, the run comes first.
        after = drill.after ++ [ "docker-stack-backup.service" ];
      }
    );

    # Started at boot, and after a run or a drill that failed.
    systemd.services.docker-stack-backup-recover = lib.recursiveUpdate commonUnit {
      description = "Start the stacks that an interrupted backup left stopped";
      wantedBy = [ "multi-user.target" ];
      # This unit mails the report of a run that was killed.
      wants = dockerUnits ++ mailUnits;
      after = dockerUnits ++ mailUnits;
      # It is tried again, because Docker may not be ready yet or a stack not healthy.
      startLimitIntervalSec = 3600;
      startLimitBurst = 10;
      serviceConfig =
        hardening (hookNeeds // {
          inherit readPaths;
          # An interrupted restore is undone beside the directories that it replaces.
          writePaths = writePaths ++ map dirOf stackPaths ++ [ dataRoot ];
          # The password is read from the file itself. With `LoadCredential=` a
          # missing file would keep this unit, and so the stacks, from starting;
          # without it only the mail is not sent.
          inherit needsNetwork;
        })
        // {
          Type = "oneshot";
          ExecStart = "${lib.getExe cfg.package} recover";
          # Status 2: every stack is up, but something else failed, such as the mail.
          SuccessExitStatus = 2;
          Restart = "on-failure";
          RestartSec = 30;
          KillMode = "mixed";
        };
    };

    systemd.timers.docker-stack-backup = timer "Back up Docker Compose stacks" cfg;
    systemd.timers.docker-stack-backup-drill = lib.mkIf cfg.drill.enable (
      timer "Drill the newest archives of Docker Compose stacks" cfg.drill
    );
    systemd.timers.docker-stack-backup-verify = lib.mkIf cfg.verify.enable (
      timer "Verify the archives of Docker Compose stacks" cfg.verify
    );
  };
}
