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

  # The file that `LoadCredential=` hands over has this name.
  passwordCredential = "smtp-password";

  isSet = value: value != null && value != [ ] && value != { };
  stacks = lib.sort (a: b: a.order < b.order || a.order == b.order && a.name < b.name) (
    lib.mapAttrsToList (name: stack: stack // { inherit name; }) cfg.stacks
  );

  # What the program reads; the fields are those of its documentation.
  settings = {
    inherit (cfg)
      baseDir
      backupDir
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
  # The file that is used is one that the program has accepted.
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

  # For the administrator's shell: the same Docker as the units use.
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
  # Those of volumes, too.
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
      # Compose replaces `~` by it; units of the system have none.
      HOME = "/root";
      # Contexts and logins of root's shell are not for the units.
      DOCKER_CONFIG = "/var/empty";
    }
    // lib.optionalAttrs (cfg.docker.host != null) { DOCKER_HOST = cfg.docker.host; };
    # A rebuild that happens at night must not end a run.
    restartIfChanged = false;
    wants = dockerUnits;
    after = dockerUnits;
    documentation = [ "man:docker-stack-backup(1)" ];
    unitConfig.RequiresMountsFor = ownPaths ++ stackPaths;
  };

  # What a timer starts: a command of the program, and what its sandbox must allow.
  job =
    command: needs:
    lib.recursiveUpdate commonUnit {
      wants = dockerUnits ++ mailUnits;
      after = dockerUnits ++ mailUnits;
      # A restore that was cut short is undone there, where stacks may be written.
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
          # After a crash, a kill or a lack of memory, too: nothing stays down, and
          # nothing of a drill is left.
          ExecStopPost = "${lib.getExe cfg.package} recover";
          LoadCredential = lib.optional (
            cfg.email != null && cfg.email.passwordFile != null
          ) "${passwordCredential}:${cfg.email.passwordFile}";
          # The program alone gets the signal: a `docker` that is under way goes on.
          KillMode = "mixed";
          # To start the stack that is down, and wait until it is healthy.
          TimeoutStopSec = "15min";
        };
    };

  # Options that a timer is made of.
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
        The stacks to back up, one after another: a list of names, in this order,
        each the name of a directory in {option}`services.docker-stack-backup.baseDir`;
        or an attribute set with options for each of them.
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
        Options for stacks that do not set them. `exclude`, `excludeVolumes`,
        `includeVolumes` and `unshared` are added to those of each stack.
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
      description = "Where a stack without a `path` is.";
      example = "/srv/stacks";
    };

    backupDir = mkOption {
      type = options.absolutePath;
      apply = toString;
      default = "/var/backups/docker";
      description = ''
        Where the archives are: `<backupDir>/<stack>/<stack>_<YYYYMMDD>_<HHMMSS>.tar`.
        It is made for root alone where it does not exist.
      '';
      example = "/mnt/backup/docker";
    };

    stateDir = mkOption {
      type = options.absolutePath;
      apply = toString;
      default = "/var/lib/docker-stack-backup";
      description = ''
        Where the journal of stopped stacks, the lock and the last outcome are. It
        must survive a reboot.
      '';
      example = "/persist/docker-stack-backup";
    };

    logFile = options.optional options.absolutePath {
      apply = options.asString;
      default = "/var/log/docker-backup.log";
      description = "Log lines are appended to it, beside the systemd journal; `null` for none.";
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
                Keep archives that are younger than so many days. 28, if no rule is set.
              '' 14;
              keepLast = rule "Keep the newest so many archives." 3;
              keepDaily = rule "Keep the newest archive of each of the last so many days that have one." 7;
              keepWeekly = rule "Keep the newest archive of each of the last so many weeks that have one." 4;
              keepMonthly = rule "Keep the newest archive of each of the last so many months that have one." 12;
              keepYearly = rule "Keep the newest archive of each of the last so many years that have one." 3;
            };
          }
        );
        default = { };
        description = ''
          How long archives are kept: one that any rule keeps is kept, and the
          newest good one always. `null` keeps everything.
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
                `starttls` upgrades a plain connection and refuses to go on
                without, `tls` encrypts from the first byte. `none` together with
                a user is refused for another host than this one.
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
                    File with the password of {option}`user`. It is read by systemd
                    (`LoadCredential=`), need be readable by root alone, and cannot
                    be in the Nix store, which everybody can read.
                  '';
                  example = "/run/secrets/smtp-password";
                };
            caFile = options.optional options.absolutePath {
              description = "PEM file with certificates to trust beside the system's.";
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
              description = "Put in brackets before the subject.";
              example = "nas";
            };
            when = mkOption {
              type = types.enum [
                "always"
                "failure"
              ];
              default = "always";
              description = "Whether to mail every report, or only those of runs in which something failed or is warned of.";
              example = "failure";
            };
            timeout = mkOption {
              type = types.ints.positive;
              default = 60;
              description = "Seconds for every step of the conversation with the server.";
              example = 120;
            };
          };
        }
      );
      default = null;
      description = "Where to mail the report of each run; `null` for nowhere.";
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
        enable = lib.mkEnableOption "drills, which prove that the newest archive of each stack comes up again";
      };

    onSuccess = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = ''
        Units to start after a run in which everything went well, such as a job
        that takes the archives elsewhere.
      '';
      example = [ "borgbackup-job-stacks.service" ];
    };

    onFailure = mkOption {
      type = types.listOf types.str;
      default = [ ];
      description = "Units to start after a run or a drill in which something did not go well.";
      example = [ "notify-admin.service" ];
    };

    checkConfig = mkOption {
      type = types.bool;
      default = pkgs.stdenv.buildPlatform.canExecute pkgs.stdenv.hostPlatform;
      defaultText = lib.literalMD "`true`, unless the package cannot run on the machine that builds";
      description = ''
        Whether the program checks its configuration when the system is built, so
        that a mistake fails the build and not the run at night.
      '';
      example = false;
    };

    docker = {
      package = mkOption {
        type = types.package;
        default = config.virtualisation.docker.package;
        defaultText = lib.literalExpression "config.virtualisation.docker.package";
        description = "Where the `docker` command is from; it must have Compose 2.20 or newer.";
        example = lib.literalExpression "pkgs.docker_29";
      };

      host = options.optional types.str {
        description = ''
          Another Docker Engine than the system's, as in `DOCKER_HOST`; such as a
          rootless one's socket. It must run on this machine: the data is read
          from this machine's file systems.
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
      assertion = !lib.any (source: isBelow source cfg.backupDir) ([ stack.path ] ++ stack.includeBinds);
      message = ''
        services.docker-stack-backup.backupDir (${cfg.backupDir}) lies in what stack
        "${stack.name}" archives (${stack.path}): it would archive its own archives.
      '';
    }) stacks
    ++ lib.mapAttrsToList (path: same: {
      # One directory may hold several projects.
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
          services.docker-stack-backup.email.when is "failure": if the mail itself does not
          get through, nobody learns of a failed backup. Set
          services.docker-stack-backup.onFailure as well, or "always".
        '';

    environment.systemPackages = [ wrapper ];
    environment.etc."docker-stack-backup/config.json".source = configFile;

    systemd.tmpfiles.settings."10-docker-stack-backup" = lib.genAttrs ownPaths (_: {
      # ":" leaves the mode and the owner of what is there already alone.
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
          writePaths = writePaths ++ [ "${dataRoot}/volumes" ];
          unpacks = true;
        };
      in
      drill
      // {
        description = "Drill the newest archives of Docker Compose stacks";
        # Of a run and a drill that are due at the same time, the run comes first.
        after = drill.after ++ [ "docker-stack-backup.service" ];
      }
    );

    # At boot, and after a run or a drill that failed.
    systemd.services.docker-stack-backup-recover = lib.recursiveUpdate commonUnit {
      description = "Start the stacks that an interrupted backup left stopped";
      wantedBy = [ "multi-user.target" ];
      # A run that was killed is mailed from here.
      wants = dockerUnits ++ mailUnits;
      after = dockerUnits ++ mailUnits;
      # Docker may not be ready yet, or a stack not be healthy at once.
      startLimitIntervalSec = 3600;
      startLimitBurst = 10;
      serviceConfig =
        hardening {
          inherit readPaths;
          # To undo an interrupted restore, which is beside what it replaces.
          writePaths = writePaths ++ map dirOf stackPaths ++ [ dataRoot ];
          # The report of a run that was killed is mailed from here. Its password
          # is read from the file: without it no mail is sent, but with
          # `LoadCredential=` nothing would be started.
          inherit needsNetwork;
        }
        // {
          Type = "oneshot";
          ExecStart = "${lib.getExe cfg.package} recover";
          # The interrupted run did less than it should have, but all is up.
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
