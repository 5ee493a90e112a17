# The options of one stack. `sharedOptions` are those that make sense for several
# stacks at once; `services.docker-stack-backup.defaults` has them too.
# A value of `null` or `[ ]` is left out of the configuration file, so that the
# program's own default applies.
{ lib }:
let
  inherit (lib) mkOption types;
  paths = import ./paths.nix { inherit lib; };

  # `toString` keeps a path literal such as `./web` from being copied into the
  # store, where everybody can read it.
  absolutePath = types.pathWith { absolute = true; };
  asString = value: if value == null then null else paths.normalize value;

  optional =
    type: attrs:
    mkOption (
      {
        type = types.nullOr type;
        default = null;
      }
      // attrs
    );

  list =
    attrs:
    mkOption (
      {
        type = types.listOf types.str;
        default = [ ];
      }
      // attrs
    );
in
rec {
  inherit absolutePath asString optional;

  sharedOptions = {
    exclude = list {
      description = ''
        Files to leave out of the archive, as patterns like those of `.gitignore`.
        They are relative to the stack's directory and to the root of each volume.
      '';
      example = [
        "cache/"
        "*.tmp"
        "!important.tmp"
      ];
    };

    excludeCaches = optional types.bool {
      description = ''
        Whether to leave out the content of directories that a `CACHEDIR.TAG`
        marks as caches. `null` means `false`.
      '';
      example = true;
    };

    excludeVolumes = list {
      description = "Local named volumes to leave out, by the names that `docker volume ls` shows.";
      example = [ "immich_model-cache" ];
    };

    includeVolumes = list {
      description = ''
        External, anonymous or driver-backed volumes to archive, by the names that
        `docker volume ls` shows. Local named volumes need not be listed.
      '';
      example = [ "shared-media" ];
    };

    ignoreBinds = list {
      description = ''
        Binds outside the stack's directory that are not archived on purpose, so
        that reports do not name them: paths on the host, or
        `service:/path/in/container`.
      '';
      example = [ "/mnt/media" ];
    };

    capture =
      optional
        (types.enum [
          "precopy"
          "offline"
        ])
        {
          description = ''
            How a consistent copy is taken. `precopy` copies the data while the
            stack is up; only files that changed since are copied while it is
            down. `offline` reads everything while it is down. `null` means
            `precopy`.
          '';
          example = "offline";
        };

    share = optional types.bool {
      description = ''
        Whether archives share blocks with the stack's files, where both are on
        one file system that can (XFS, Btrfs). `null` means `true`.
      '';
      example = false;
    };

    unshared = list {
      description = ''
        Files whose blocks archives do not share, as patterns like those of
        `exclude`.
      '';
      example = [ "pgdata/" ];
    };

    stopMethod =
      optional
        (types.enum [
          "stop"
          "down"
          "pause"
        ])
        {
          description = ''
            `stop` stops the containers and starts the same containers again.
            `down` removes them and creates new ones, which get their anonymous volumes. It is refused if
            `up` would make other containers than those that run.
            `pause` freezes them: the archive is crash-consistent, as after a
            power cut. `null` means `stop`.
          '';
          example = "down";
        };

    stopTimeout = optional types.ints.unsigned {
      description = ''
        Seconds from the stop signal to SIGKILL. `null` means each container's
        own `stop_grace_period`.
      '';
      example = 60;
    };

    startTimeout = optional types.ints.positive {
      description = ''
        Seconds within which all containers that ran before must run again and be
        healthy. `null` means 180.
      '';
      example = 600;
    };

    downLimit = optional types.ints.positive {
      description = ''
        Seconds without any progress after which the copy of a stack that is down is
        given up and the stack is started, for example because a network mount does
        not answer. `null` means 120.
      '';
      example = 300;
    };

    captureLimit = optional types.ints.positive {
      description = ''
        Seconds after which a stack that is down is started in any case, even if its
        copy makes progress. `null` means no limit.
      '';
      example = 1800;
    };

    stallLimit = optional types.ints.positive {
      description = ''
        Seconds without any progress after which the backup of a stack that is up is
        given up, and the next stack has its turn. `null` means 900.
      '';
      example = 3600;
    };

    drill = optional types.bool {
      description = ''
        Whether a drill of all stacks drills this one. `null` means `true`.
      '';
      example = false;
    };

    verify =
      optional
        (types.enum [
          "none"
          "structure"
          "written"
          "full"
        ])
        {
          description = ''
            How an archive is checked once the stack is up again and before the
            archive gets its name. `written` and `full` put a file with the
            checksums of its members beside it. `full` also reads all of the
            archive back from the disk and compares it. `structure` reads headers
            only, without checksums. `null` means `written`.
          '';
          example = "structure";
        };

    onBusy =
      optional
        (types.enum [
          "fail"
          "warn"
        ])
        {
          description = ''
            What to do when something still writes to the data of a stopped stack:
            `fail` makes no archive and reports a failure; `warn` makes an archive
            and adds a warning to the report. `null` means `fail`.
          '';
          example = "warn";
        };
  };

  # `baseDir` holds the directories of stacks without a `path`.
  stack =
    { baseDir }:
    { name, ... }:
    {
      options = sharedOptions // {
        order = mkOption {
          type = types.int;
          default = 1000;
          description = ''
            Position of the stack. Stacks are backed up one after another, the
            lowest number first, and by name where the numbers are the same.
          '';
          example = 10;
        };

        path = mkOption {
          type = absolutePath;
          apply = asString;
          default = "${baseDir}/${name}";
          defaultText = lib.literalExpression ''"''${config.services.docker-stack-backup.baseDir}/<name>"'';
          description = "Directory of the stack's compose file.";
          example = "/srv/immich";
        };

        project = optional types.str {
          description = ''
            Compose's project name, for a stack that was started with `-p`. `null`
            takes the name from Compose and from the containers.
          '';
          example = "immich-prod";
        };

        files = list {
          description = "Compose files, as for `docker compose -f`, relative to {option}`path`.";
          example = [
            "compose.yml"
            "compose.prod.yml"
          ];
        };

        envFiles = list {
          description = "Environment files, as for `docker compose --env-file`, relative to {option}`path`.";
          example = [ ".env.prod" ];
        };

        drillCheck = list {
          description = ''
            A service, followed by a command that a drill runs in it. The drill
            succeeds only if the command does.
          '';
          example = [
            "db"
            "psql"
            "-c"
            "select 1"
          ];
        };

        drillSecrets = mkOption {
          type = types.listOf absolutePath;
          apply = map toString;
          default = [ ];
          description = ''
            Files of this machine, or directories of them, that a drill may copy
            where the compose file names one of them as a secret or a config.
          '';
          example = [ "/run/secrets/web" ];
        };

        includeBinds = mkOption {
          type = types.listOf absolutePath;
          apply = map paths.normalize;
          default = [ ];
          description = ''
            Directories outside the stack's own that its containers mount, to be
            archived with it.
          '';
          example = [ "/srv/scans" ];
        };
      };
    };
}
