# Options of one stack. Those that make sense for several stacks at once come
# from `sharedOptions`, which `services.docker-stack-backup.defaults` has, too.
# A value of `null` or `[ ]` is left out of the configuration file: the program's
# own default holds then.
{ lib }:
let
  inherit (lib) mkOption types;

  # `toString` keeps a path literal such as `./web` from being copied into the
  # store, where everybody can read it.
  absolutePath = types.pathWith { absolute = true; };
  asString = value: if value == null then null else toString value;

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
        Patterns as in `.gitignore` of what is left out of the archive, relative
        to the stack's directory and to the root of each of its volumes.
      '';
      example = [
        "cache/"
        "*.tmp"
        "!important.tmp"
      ];
    };

    excludeCaches = optional types.bool {
      description = ''
        Whether to leave out what directories marked by a `CACHEDIR.TAG` hold.
        `null` means no.
      '';
      example = true;
    };

    excludeVolumes = list {
      description = "Local named volumes to leave out, by the name Docker knows them by.";
      example = [ "immich_model-cache" ];
    };

    includeVolumes = list {
      description = ''
        External, anonymous or driver-backed volumes to archive, by the name
        Docker knows them by. Local named volumes need not be listed.
      '';
      example = [ "shared-media" ];
    };

    capture =
      optional
        (types.enum [
          "precopy"
          "offline"
        ])
        {
          description = ''
            How a consistent copy is taken. `precopy` copies while the stack is
            up, and what has changed since while it is down. `offline` reads
            everything while it is down. `null` means `precopy`.
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
        Files that do not share blocks with archives, as patterns like those of
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
            `stop` stops the containers and starts the very same again. `down`
            removes them and makes new ones, which loses anonymous volumes.
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
        Seconds within which all that ran before must run again and be healthy.
        `null` means 180.
      '';
      example = 600;
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
            `fail` makes no archive and reports a failure, `warn` makes one and
            warns. `null` means `fail`.
          '';
          example = "warn";
        };
  };

  # `baseDir` is where a stack without a `path` is.
  stack =
    { baseDir }:
    { name, ... }:
    {
      options = sharedOptions // {
        order = mkOption {
          type = types.int;
          default = 1000;
          description = ''
            Stacks are backed up one after another, the lowest number first;
            those with the same number by name.
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
            Compose's project name, where the stack was started with `-p`.
            `null` means what Compose and the containers say.
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

        includeBinds = mkOption {
          type = types.listOf absolutePath;
          apply = map toString;
          default = [ ];
          description = ''
            Directories outside the stack's own, mounted by its containers, that
            are to be archived with it.
          '';
          example = [ "/srv/scans" ];
        };
      };
    };
}
