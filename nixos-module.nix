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

  # Name of the file that `LoadCredential=` hands to the program.
  passwordCredential = "smtp-password";

  isSet = value: value != null && value != [ ] && value != { };
  stacks = lib.sort (a: b: a.order < b.order || a.order == b.order && a.name < b.name) (
    lib.mapAttrsToList (name: stack: stack // { inherit name; }) cfg.stacks
  );

  # The program's configuration file. docs/configuration.md describes its fields.
  settings = {
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

  uncheckedConfig = (pkgs.formats.json { }).generate "docker-stack-backup.json" settings;
  # A mistake fails the build, because the program itself checks the file there.
  checkedConfig =
    pkgs.runCommandLocal "docker-stack-backup-checked.json" { config = uncheckedConfig; }
      ''
        if ! ${lib.getExe cfg.package} --config "$config" check; then
          echo "These are the options of services.docker-stack-backup, by their names in $config." >&2
          exit 1
        fi
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

  isUnixHost = cfg.docker.host == null || lib.hasPrefix "unix://" cfg.docker.host;
  stackPaths = lib.concatMap (stack: [ stack.path ] ++ stack.includeBinds) stacks;
  # Volumes are read as directories.
  readPaths = stackPaths ++ [ dataRoot ];
  ownPaths = [
    cfg.backupDir
    cfg.stateDir
  ];
  writePaths = ownPaths ++ lib.optional (cfg.logFile != null) (dirOf cfg.logFile);
  dockerUnits = lib.optional (cfg.docker.host == null) "docker.service";
  dataRoot = config.virtualisation.docker.daemon.settings.data-root or "/var/lib/docker";
  needsNetwork = cfg.email != null || !isUnixHost;
  mailUnits = lib.optional (cfg.email != null) "network-online.target";
  isBelow = dir: path: path == dir || lib.hasPrefix "${dir}/" path;

  commonUnit = {
    path = [ cfg.docker.package ];
    environment = {
      # Compose expands `~` with HOME, which system units do not have.
      HOME = "/root";
      # The contexts and logins of root's shell must not change what the units do.
      DOCKER_CONFIG = "/var/empty";
    }
    // lib.optionalAttrs (cfg.docker.host != null) { DOCKER_HOST = cfg.docker.host; };
    # A system rebuild at night must not end a run.
    restartIfChanged = false;
    wants = dockerUnits;
    after = dockerUnits;
    documentation = [ "man:docker-stack-backup(1)" ];
    unitConfig.RequiresMountsFor = ownPaths ++ stackPaths;
  };

  # A service that a timer starts: one command of the program. `needs` says what
  # its sandbox must allow.
  job =
    command: needs:
    lib.recursiveUpdate commonUnit {
      wants = dockerUnits ++ mailUnits;
      after = dockerUnits ++ mailUnits;
      # The recover unit may write to the stacks, so it can undo an interrupted restore.
      onFailure = [ "docker-stack-backup-recover.service" ] ++ cfg.onFailure;
      serviceConfig =
        hardening (
          {
            inherit readPaths writePaths needsNetwork;
          }
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
          ) "${passwordCredential}:${cfg.email.passwordFile}";
          # Only the program gets SIGTERM; a running `docker` command must complete.
          KillMode = "mixed";
          # Time to start the stack that is down and to wait until it is healthy.
          TimeoutStopSec = "15min";
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
    };

  timer =
    description: options:
    lib.mkIf (options.schedule != null) {
      inherit description;
      wantedBy = [ "timers.target" ];
      timerConfig = {
        OnCalendar = options.schedule;
        Persistent = options.persistent;
        RandomizedDelaySec = options.randomizedDelaySec;
      };
    };
in
{
  options.services.docker-stack-backup = {
    enable = lib.mkEnableOption "backups of Docker Compose stacks";

    package = lib.mkPackageOption pkgs "docker-stack-backup" { };

    stacks = mkOption {
      type =
        let
          fromNames =
            names:
            let
              twice = lib.filter (name: lib.count (other: other == name) names > 1) names;
            in
            if twice != [ ] then
              throw "services.docker-stack-backup.stacks: \"${lib.head twice}\" is there twice"
            else
              lib.listToAttrs (lib.imap1 (order: name: lib.nameValuePair name { inherit order; }) names);
        in
        types.coercedTo (types.listOf types.str) fromNames (
          types.attrsOf (types.submodule (options.stack { inherit (cfg) baseDir; }))
        );
      default = { };
      description = ''
        The stacks to back up, one after another. Either a list of directories in
        {option}`services.docker-stack-backup.baseDir`, by name, which are backed up
        in this order; or an attribute set with options for each stack.
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
        `excludeVolumes`, `includeVolumes` and `unshared` are added to those of each
        stack.
      '';
      example = {
        exclude = [ "*.tmp" ];
        startTimeout = 300;
      };
    };

    baseDir = mkOption {
      type = options.absolutePath;
      apply = toString;
      default = "/opt/stacks";
      description = "Directory that holds the stacks without a `path`.";
      example = "/srv/stacks";
    };

    backupDir = mkOption {
      type = options.absolutePath;
      apply = toString;
      default = "/var/backups/docker";
      description = ''
        Directory of the archives: `<backupDir>/<stack>/<stack>_<YYYYMMDD>_<HHMMSS>.tar`.
        If it does not exist, it is created with access for root only.
      '';
      example = "/mnt/backup/docker";
    };

    stateDir = mkOption {
      type = options.absolutePath;
      apply = toString;
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
      default = "/var/log/docker-backup.log";
      description = "File that log lines are appended to, beside the systemd journal; `null` for none.";
      example = null;
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
          Address of another Docker Engine than the system's, as in `DOCKER_HOST`,
          such as the socket of a rootless one. The Engine must run on this machine,
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

    systemd.tmpfiles.settings."10-docker-stack-backup" = lib.genAttrs ownPaths (_: {
      # ":" keeps the mode and the owner of a directory that exists already.
      d = {
        mode = ":0700";
        user = ":root";
        group = ":root";
      };
    });

    systemd.services.docker-stack-backup = lib.recursiveUpdate (job "run" { archives = true; }) {
      description = "Back up Docker Compose stacks";
      inherit (cfg) onSuccess;
    };

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
        hardening {
          inherit readPaths;
          # An interrupted restore is undone beside the directories that it replaces.
          writePaths = writePaths ++ map dirOf stackPaths ++ [ dataRoot ];
          # The password is read from the file itself. With `LoadCredential=` a
          # missing file would keep this unit, and so the stacks, from starting;
          # without it only the mail is not sent.
          inherit needsNetwork;
        }
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
  };
}
