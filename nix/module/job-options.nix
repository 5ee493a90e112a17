# The options of a job: those of `services.docker-stack-backup` itself, and of each in
# `services.docker-stack-backup.jobs`.
{ lib, json }:
let
  inherit (lib) mkOption types;

  options = import ./stack-options.nix { inherit lib; };
  inherit (options) absolutePath asString;

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

  whenType = types.enum [
    "always"
    "failure"
    "change"
  ];

  remindDaysOption = mkOption {
    type = types.ints.positive;
    default = 3;
    description = "With `when` set to `change`: days after which a failure that lasts is told again.";
    example = 7;
  };

  # Rules on how long archives are kept.
  retentionType =
    let
      rule =
        description: example:
        options.optional types.ints.unsigned {
          inherit description example;
        };
    in
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
    };

  # A list of names, or options by name. Lists of several modules become one, in the
  # order that `mkBefore` and `mkAfter` give them.
  stacksType =
    baseDir:
    let
      byName = types.attrsOf (types.submodule (options.stack { inherit baseDir; }));
      fromNames =
        names:
        let
          twice = lib.filter (name: lib.count (other: other == name) names > 1) names;
        in
        if twice != [ ] then
          throw "services.docker-stack-backup: the stack \"${lib.head twice}\" is there twice"
        else
          lib.listToAttrs (
            lib.imap1 (place: name: lib.nameValuePair name { order = lib.mkDefault place; }) names
          );
    in
    lib.mkOptionType {
      name = "stacks";
      description = "\"all\", list of string or ${byName.description}";
      inherit (byName) emptyValue getSubOptions;
      check = value: value == "all" || byName.check value || (types.listOf types.str).check value;
      merge =
        loc: defs:
        let
          all = lib.partition (def: def.value == "all") defs;
          kinds = lib.partition (def: lib.isList def.value) defs;
          named = lib.optional (kinds.right != [ ]) {
            inherit (lib.head kinds.right) file;
            value = fromNames (lib.concatMap (def: def.value) kinds.right);
          };
        in
        if all.right == [ ] then
          byName.merge loc (named ++ kinds.wrong)
        else if all.wrong == [ ] then
          "all"
        else
          throw "services.docker-stack-backup: `stacks` is \"all\", and stacks are listed in ${
            lib.showFiles (map (def: def.file) all.wrong)
          }; do one of the two";
    };

  # The options of a command of its own timer.
  command =
    { enable, ... }@options:
    timerOptions (removeAttrs options [ "enable" ]) // { enable = lib.mkEnableOption enable; };
in
{
  # Where the options are.
  path,
  # What the options are set to.
  config,
  # What the default directories end in: nothing, or the name of the job.
  suffix ? "",
  # The same options of the simple form, some of which a job takes over.
  simple ? null,
  # Where the node exporter looks for files of metrics; `null` if it does not.
  textfileDirectory ? null,
}:
let
  # The default of an option that a job takes over.
  takenOver =
    name: default:
    if simple == null then
      { inherit default; }
    else
      {
        default = simple.${name};
        defaultText = lib.literalExpression "config.services.docker-stack-backup.${name}";
      };
  directory =
    path:
    {
      type = absolutePath;
      apply = asString;
      default = path + suffix;
    }
    // lib.optionalAttrs (simple != null) {
      defaultText = lib.literalExpression ''"${path}-<name>"'';
    };
in
{
  stacks = mkOption {
    type = stacksType config.baseDir;
    default = { };
    description = ''
      The stacks to back up, one after another. Either a list of directories in
      {option}`${path}.baseDir`, by name, which are backed up
      in this order; or an attribute set with options for each stack; or `"all"` for
      every Compose project of the Engine, and each directory with a compose file in
      {option}`${path}.baseDir`. Lists of several modules are joined.
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

  ignoreProjects = mkOption {
    type = types.listOf types.str;
    default = [ ];
    description = ''
      Compose projects that are not backed up on purpose, by name, as globs; `*` is all
      that are not listed. Reports warn of every other one that runs without a stack.
    '';
    example = [ "test-*" ];
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

  baseDir = mkOption (
    takenOver "baseDir" "/opt/stacks"
    // {
      type = absolutePath;
      apply = asString;
      description = "Directory that holds the stacks without a `path`.";
      example = "/srv/stacks";
    }
  );

  backupDir = mkOption (
    directory "/var/backups/docker"
    // {
      description = ''
        Directory of the archives: `<backupDir>/<stack>/<stack>_<YYYYMMDD>_<HHMMSS>.tar`.
        If it does not exist, it is created with access for root only.
      '';
      example = "/mnt/backup/docker";
    }
  );

  stateDir = mkOption (
    directory "/var/lib/docker-stack-backup"
    // {
      description = ''
        Directory of the journal of stopped stacks, the lock and the outcome of the
        last run. It must survive a reboot.
      '';
      example = "/persist/docker-stack-backup";
    }
  );

  requireMount = options.optional absolutePath {
    apply = asString;
    description = ''
      A directory that must be a mount point, with {option}`backupDir` on what is
      mounted there. A run refuses to start otherwise. The store that a run has
      used once is recognised without this option.
    '';
    example = "/mnt/backup";
  };

  logFile = options.optional absolutePath {
    apply = asString;
    description = ''
      File that log lines are appended to, beside the systemd journal. It is rotated
      every month, where {option}`services.logrotate` is enabled.
    '';
    example = "/var/log/docker-backup.log";
  };

  metricsFile = mkOption {
    type = types.nullOr absolutePath;
    apply = asString;
    default =
      if textfileDirectory == null then
        null
      else
        "${textfileDirectory}/docker-stack-backup${suffix}.prom";
    defaultText = lib.literalMD ''
      a file in the directory that `--collector.textfile.directory` names, if
      {option}`services.prometheus.exporters.node.extraFlags` has that flag, else `null`
    '';
    description = ''
      File for the textfile collector of {option}`services.prometheus.exporters.node`.
      Its directory must exist; the exporter must be able to read it.
    '';
    example = "/var/lib/node-exporter/docker-stack-backup.prom";
  };

  failOnWarning = mkOption {
    type = types.bool;
    default = false;
    description = ''
      Whether a run with a warning has exit status 2, so that its unit fails.
    '';
    example = true;
  };

  retention = mkOption {
    type = types.nullOr retentionType;
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

  email = mkOption (
    takenOver "email" null
    // {
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
            caFile = options.optional absolutePath {
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
              type = whenType;
              default = "always";
              description = ''
                `always` mails every report; `failure` only reports that contain a
                failure or a warning; `change` only those that differ from the one
                before, and again every {option}`remindDays` while a failure lasts.
              '';
              example = "change";
            };
            remindDays = remindDaysOption;
            log = mkOption {
              type = types.enum [
                "always"
                "failure"
                "never"
              ];
              default = "failure";
              description = "Which mails have the log of the run: all, those of runs in which something failed, or none.";
              example = "never";
            };
            html = mkOption {
              type = types.bool;
              default = false;
              description = "Whether the report is in the mail a second time, as HTML, which mail programs show instead of the text.";
              example = true;
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
    }
  );

  notify = mkOption (
    takenOver "notify" [ ]
    // {
      type = types.listOf (
        types.submodule {
          options = {
            kind = mkOption {
              type = types.enum [
                "healthchecks"
                "uptime-kuma"
                "ntfy"
                "gotify"
                "webhook"
              ];
              description = "Kind of the service that is told.";
              example = "ntfy";
            };
            name = options.optional types.str {
              description = "Name that tells channels of one kind apart; `null` means the kind.";
              example = "ntfy-family";
            };
            urlFile = mkOption {
              type = types.pathWith {
                absolute = true;
                inStore = false;
              };
              description = ''
                File with the URL of the channel, which is a secret, and below it lines
                with header fields. systemd reads it (`LoadCredential=`), so only root
                needs access. It cannot be in the Nix store, which everybody can read.
              '';
              example = "/run/secrets/ntfy-url";
            };
            caFile = options.optional absolutePath {
              description = "PEM file with certificates to trust in addition to the system's.";
              example = "/etc/ssl/my-ca.pem";
            };
            when = options.optional whenType {
              description = ''
                Which runs it is told of, as in {option}`email.when`. `null` means
                `change` for `ntfy` and `gotify`, and `always` for the others.
              '';
              example = "failure";
            };
            remindDays = remindDaysOption;
            timeout = mkOption {
              type = types.ints.positive;
              default = 20;
              description = "Time limit in seconds for one attempt.";
              example = 60;
            };
          };
        }
      );
      description = ''
        Other channels than mail that are told of runs, and of drills: monitors,
        notifications on a telephone, a webhook. docs/notifications.md has a recipe for
        each.
      '';
      example = lib.literalExpression ''
        [
          {
            kind = "healthchecks";
            urlFile = config.age.secrets.healthchecks.path;
          }
          {
            kind = "ntfy";
            urlFile = config.age.secrets.ntfy.path;
          }
        ]
      '';
    }
  );

  handover = mkOption {
    type = types.listOf (
      types.submodule {
        options = {
          kind = mkOption {
            type = types.enum [
              "borg"
              "restic"
            ];
            description = "The program that works on the repository.";
            example = "borg";
          };
          name = options.optional types.str {
            description = "Name that tells repositories of one kind apart; `null` means the kind.";
            example = "nas";
          };
          repository = mkOption {
            type = types.str;
            description = "Where the repository is, as the program takes it.";
            example = "ssh://borg@backup.example.org/./stacks";
          };
          passphraseFile =
            options.optional
              (types.pathWith {
                absolute = true;
                inStore = false;
              })
              {
                description = ''
                  File with the passphrase of the repository. systemd reads it
                  (`LoadCredential=`), so only root needs access. It cannot be in the Nix
                  store, which everybody can read.
                '';
                example = "/run/secrets/borg-passphrase";
              };
          environment = mkOption {
            type = types.attrsOf types.str;
            default = { };
            description = "Further variables for the program. They are in the Nix store, so none may be a secret.";
            example = {
              BORG_RSH = "ssh -i /etc/secrets/borg-key";
            };
          };
          secrets = mkOption {
            type = types.attrsOf types.str;
            default = { };
            description = ''
              Variables for the program whose values are read when it runs: from a file (an
              absolute path) or from a systemd credential (its name).
            '';
            example = {
              AWS_SECRET_ACCESS_KEY = "/run/secrets/s3";
            };
          };
          retention = mkOption {
            type = types.nullOr retentionType;
            default = null;
            description = "How long archives are kept in the repository. `null` removes nothing there.";
            example = {
              keepDaily = 14;
              keepMonthly = 12;
            };
          };
          checkDays = mkOption {
            type = types.nullOr types.ints.positive;
            default = 30;
            description = "Days between two checks of the repository; `null` for no check.";
            example = 7;
          };
          timeLimit = mkOption {
            type = types.ints.positive;
            default = 14400;
            description = "How long one run may take for this repository, in seconds. What is left then is done by the next run.";
            example = 28800;
          };
        };
      }
    );
    default = [ ];
    description = ''
      Repositories of Borg and restic to which a run hands over its archives when all
      stacks are up again. They must exist: docs/off-site.md has the commands.
    '';
    example = lib.literalExpression ''
      [
        {
          kind = "borg";
          repository = "ssh://borg@backup.example.org/./stacks";
          passphraseFile = config.age.secrets.borg.path;
          retention.keepDaily = 14;
        }
      ]
    '';
  };

  inherit
    (timerOptions {
      inherit path;
      what = "run";
      schedule = "03:00";
      example = "Sun 04:30";
    })
    schedule
    persistent
    randomizedDelaySec
    timerConfig
    ;

  drill = command {
    path = "${path}.drill";
    what = "drill";
    schedule = "*-*-01 05:00";
    example = "Sun 05:00";
    enable = "drills, which start the newest archive of each stack as a throw-away project and check that it becomes healthy";
  };

  verify = command {
    path = "${path}.verify";
    what = "verification";
    schedule = "*-*-15 05:00";
    example = "Sun 06:00";
    enable = "verification, which reads all archives back and compares them with their checksums";
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

  onFailure = mkOption (
    takenOver "onFailure" [ ]
    // {
      type = types.listOf types.str;
      description = "Units to start after a run or a drill with a failure.";
      example = [ "notify-admin.service" ];
    }
  );
}
