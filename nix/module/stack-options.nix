# The options of one stack. `sharedOptions` are those that make sense for several
# stacks at once; `services.docker-stack-backup.defaults` has them too.
# A value of `null` or `[ ]` is left out of the configuration file, so that the
# program's own default applies.
{ lib }:
let
  inherit (lib) mkOption types;
  paths = import ./paths.nix { inherit lib; };

  # `..` is refused, because what it leads to depends on symlinks, and paths are
  # compared.
  absolutePath =
    types.addCheck (types.pathWith { absolute = true; }) (
      value: !lib.elem ".." (lib.splitString "/" (toString value))
    )
    // {
      description = "absolute path without `..`";
    };
  # `toString` keeps a path literal such as `./web` from being copied into the
  # store, where everybody can read it.
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

  # A command that runs at a point of the backup. What is not set is left out.
  hook = types.submodule {
    options = {
      when = mkOption {
        type = types.enum [
          "beforeCopy"
          "beforeStop"
          "whileDown"
          "afterStart"
          "afterArchive"
          "finally"
        ];
        description = ''
          When it runs: before any data is read, right before the stop, while all
          containers are stopped, when the stack is up again and healthy, when the
          archive is finished, or at the end whatever happened.
        '';
        example = "beforeCopy";
      };

      service = optional types.str {
        description = "Service in whose container it runs. Set this or {option}`host`.";
        example = "db";
      };

      host = mkOption {
        type = types.bool;
        default = false;
        description = "Whether it runs on the host, in the sandbox of the unit.";
        example = true;
      };

      user = optional types.str {
        description = ''
          User that runs it. `null` means the container's own user, or root on the
          host.
        '';
        example = "postgres";
      };

      command = mkOption {
        type = types.nonEmptyListOf types.str;
        description = "Program and arguments. There is no shell.";
        example = [
          "pg_dump"
          "--format=custom"
          "--file=/dumps/app.dump"
          "app"
        ];
      };

      timeout = optional types.ints.positive {
        description = ''
          Seconds that the command may take, and {option}`undo` as well. `null` means
          300, or `downLimit` while the stack is down.
        '';
        example = 3600;
      };

      onError = mkOption {
        type = types.enum [
          "fail"
          "warn"
        ];
        default = "fail";
        description = ''
          What a failure does: `fail` fails the backup of the stack, which is then not
          stopped if it is still up; `warn` adds a warning to the report.
        '';
        example = "warn";
      };

      undo = list {
        description = ''
          Command that takes back the effect of the first one. It runs when the stack
          is up again, after every error, and after a crash or power cut by the
          recovery.
        '';
        example = [
          "php"
          "occ"
          "maintenance:mode"
          "--off"
        ];
      };

      environment = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = "Variables for both commands. Everybody can read them in the Nix store.";
        example = {
          PGDATABASE = "app";
        };
      };

      secrets = mkOption {
        type = types.attrsOf types.str;
        default = { };
        description = ''
          Variables for both commands whose values are read when the commands run:
          from a file (an absolute path) or from a systemd credential (its name).
        '';
        example = {
          PGPASSWORD = "/run/secrets/postgres";
        };
      };
    };
  };

  hooks = mkOption {
    type = types.listOf hook;
    default = [ ];
    apply = map (
      lib.filterAttrs (_: value: value != null && value != false && value != [ ] && value != { })
    );
    description = ''
      Commands to run at certain points of the backup, in this order. Those of
      {option}`services.docker-stack-backup.defaults` come first.
    '';
    example = [
      {
        when = "beforeCopy";
        service = "db";
        user = "postgres";
        command = [
          "pg_dump"
          "--format=custom"
          "--file=/dumps/app.dump"
          "app"
        ];
      }
    ];
  };
in
rec {
  inherit absolutePath asString optional;

  sharedOptions = {
    inherit hooks;

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

    engine = optional (types.strMatching "unix:///.+") {
      description = ''
        Socket of the Engine that runs the stack, if that is another one than that of
        {option}`services.docker-stack-backup.docker`: Podman's, or that of an ordinary
        user. The user's services must run when backups are made (`linger = true`).
      '';
      example = "unix:///run/user/1000/podman/podman.sock";
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

    maxAge = optional (types.strMatching "[1-9][0-9]*[hdw]") {
      description = ''
        Age of the newest good archive beyond which reports warn: a number of hours,
        days or weeks. `null` never warns.
      '';
      example = "2d";
    };

    chunker = optional types.str {
      description = ''
        How Borg cuts the stack's archives into chunks when they are handed over, as its
        `--chunker-params` say it. `null` chooses by what an archive holds.
      '';
      example = "fixed,4096";
    };

    sizeDrop = optional (types.ints.between 1 100) {
      description = ''
        Percentage by which an archive may be smaller than those before it without a
        warning. `null` means 50; 100 never warns.
      '';
      example = 80;
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
          description = ''
            Directory of the stack's compose file. A stack of units or containers has
            {option}`paths` instead.
          '';
          example = "/srv/immich";
        };

        units = list {
          description = ''
            Units of systemd that are stopped and started instead of a Compose project,
            such as that of a service of NixOS.
          '';
          example = [ "postgresql.service" ];
        };

        containers = list {
          description = ''
            Names in {option}`virtualisation.oci-containers.containers`, whose units are
            added to {option}`units`. Their named volumes, and the directories of the
            host that they mount and can write to, are added to {option}`paths`, except
            for those in {option}`ignoreBinds` and below `/dev`, `/proc`, `/run`, `/sys`
            and `/var/run`. Where Podman runs them, {option}`engine` is its socket.
          '';
          example = [
            "immich-server"
            "immich-db"
          ];
        };

        compose2nix = optional types.str {
          description = ''
            Name of a project whose units compose2nix has made. Those of its containers
            are added like those in {option}`containers`; its networks and volumes stay
            as they are.
          '';
          example = "immich";
        };

        arion = optional types.str {
          description = ''
            Name in {option}`virtualisation.arion.projects`. Its unit, and what its
            services mount, are added as for {option}`containers`.
          '';
          example = "immich";
        };

        quadlet = list {
          description = ''
            Names in {option}`virtualisation.quadlet.containers`, the option of
            quadlet-nix. Their units, and what they mount, are added as for
            {option}`containers`.
          '';
          example = [ "immich" ];
        };

        paths = mkOption {
          type = types.listOf absolutePath;
          apply = map paths.normalize;
          default = [ ];
          description = "Directories and files of a stack with {option}`units`.";
          example = [ "/var/lib/postgresql" ];
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
