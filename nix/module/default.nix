{
  config,
  lib,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;

  cfg = config.services.docker-stack-backup;
  json = pkgs.formats.json { };
  jobOptions = import ./job-options.nix { inherit lib json; };
  makeJob = import ./job.nix {
    inherit lib pkgs json;
    shared = cfg;
    users = config.users.users or { };
    inherit (config) virtualisation;
    inherit (config.systemd) services;
  };
  stackOptions = import ./stack-options.nix { inherit lib; };
  paths = import ./paths.nix { inherit lib; };

  # Where the node exporter looks for files of metrics, if its flags say so.
  textfileDirectory =
    let
      node = config.services.prometheus.exporters.node or { };
      flag = "(.*[[:space:]])?--collector[.]textfile[.]directory[[:space:]=]+\"?([^[:space:]\"]+).*";
      found = builtins.match flag (toString (node.extraFlags or [ ]));
    in
    if !(node.enable or false) || found == null then null else lib.elemAt found 1;
  inherit (paths) isBelow;

  # The simple form is a job without a name. It is left out where there are others and
  # it has no stacks.
  simple = lib.optional (cfg.stacks != { } || cfg.jobs == { }) (cfg // { name = null; });
  named = lib.mapAttrsToList (name: job: job // { inherit name; }) cfg.jobs;
  jobs = map makeJob (simple ++ lib.filter (job: job.enable) named);
  ofJobs = attribute: lib.mkMerge (map (job: job.${attribute}) jobs);

  # The command for the administrator's shell uses the same Docker as the units.
  command = pkgs.symlinkJoin {
    inherit (cfg.package) name;
    paths = [ cfg.package ];
    nativeBuildInputs = [ pkgs.makeWrapper ];
    postBuild = ''
      wrapProgram $out/bin/docker-stack-backup \
        --prefix PATH : ${
          lib.makeBinPath ([ cfg.docker.package ] ++ lib.concatMap (job: job.handoverPackages) jobs)
        } ${
          lib.optionalString (
            cfg.docker.host != null
          ) "--set-default DOCKER_HOST ${lib.escapeShellArg cfg.docker.host}"
        }
    '';
  };
  # `docker-stack-backup-NAME` has the configuration of the job NAME.
  commandOf =
    job:
    pkgs.writeShellScriptBin "docker-stack-backup-${job.name}" ''
      exec ${command}/bin/docker-stack-backup --config /etc/${job.etcName} "$@"
    '';

  # Each job has a lock of its own, so nothing may be in the hands of two.
  allStacks = lib.concatMap (job: map (stack: stack // { job = job.path; }) job.stacks) jobs;
  # Groups `items` by `key`, and returns the groups that several jobs have a part in.
  sharedBy =
    key: items: lib.filter (same: lib.length same > 1) (lib.attrValues (lib.groupBy key items));
  jobsOf = stacks: lib.unique (map (stack: stack.job) stacks);
  assertion = message: {
    assertion = false;
    inherit message;
  };
  sameStack =
    map
      (
        same:
        assertion ''
          The stack "${(lib.head same).name}" (${lib.concatStringsSep " " (lib.head same).allPaths}) is in several jobs: ${lib.concatStringsSep " and " (jobsOf same)}.
          Two runs at once would start it while the other one copies it. Leave it in one.
        ''
      )
      (
        lib.filter (same: lib.length (jobsOf same) > 1) (
          sharedBy (stack: stack.name) allStacks
          # One directory may hold several Compose projects.
          ++ lib.filter (lib.any (stack: stack.project == null && stack.files == [ ])) (
            sharedBy (stack: stack.path) (lib.filter (stack: stack.units == [ ]) allStacks)
          )
          ++ sharedBy (stack: stack.unit) (
            lib.concatMap (stack: map (unit: stack // { inherit unit; }) stack.units) allStacks
          )
        )
      );
  # A job that takes all stacks takes those of the others, too.
  allBesideOthers =
    lib.optional (lib.length jobs > 1 && lib.any (job: job.takesAll) jobs)
      (assertion ''
        ${
          lib.concatMapStringsSep " and " (job: job.path) (lib.filter (job: job.takesAll) jobs)
        }.stacks is "all", and there are other jobs. Two runs at once would start a stack while
        the other one copies it. List the stacks of each job.
      '');
  sameState = map (
    same:
    assertion ''
      ${lib.concatMapStringsSep " and " (job: job.path) same} have the same stateDir
      ${(lib.head same).stateDir}. Give each its own, because it holds the journal of what a
      run has stopped.
    ''
  ) (sharedBy (job: job.stateDir) jobs);
  sameStore = lib.concatLists (
    lib.imap1 (
      i: a:
      map
        (
          b:
          assertion ''
            ${a.path}.backupDir (${a.backupDir}) and ${b.path}.backupDir (${b.backupDir})
            hold one another. Give each job its own, because a run removes unfinished archives.
          ''
        )
        (
          lib.filter (b: isBelow a.backupDir b.backupDir || isBelow b.backupDir a.backupDir) (lib.drop i jobs)
        )
    ) jobs
  );
  storeInStack = lib.concatMap (
    job:
    map
      (
        stack:
        assertion ''
          ${job.path}.backupDir (${job.backupDir}) lies within what the stack "${stack.name}"
          archives (${lib.concatStringsSep " " stack.allPaths}), or holds it, so archives would contain archives. Choose a
          directory outside of the stack that holds no stack.
        ''
      )
      (
        lib.filter (
          stack:
          lib.any (source: isBelow source job.backupDir || isBelow job.backupDir source) (stack.allPaths)
        ) allStacks
      )
  ) jobs;
in
{
  options.services.docker-stack-backup =
    jobOptions {
      path = "services.docker-stack-backup";
      config = cfg;
      inherit textfileDirectory;
    }
    // {
      enable = lib.mkEnableOption "backups of Docker Compose stacks";

      package = lib.mkPackageOption pkgs "docker-stack-backup" { };

      jobs = mkOption {
        type = types.attrsOf (
          types.submodule (
            { name, config, ... }:
            {
              options =
                jobOptions {
                  path = "services.docker-stack-backup.jobs.<name>";
                  suffix = "-${name}";
                  simple = cfg;
                  inherit config textfileDirectory;
                }
                // {
                  enable = lib.mkEnableOption "this job" // {
                    default = true;
                  };
                };
            }
          )
        );
        default = { };
        description = ''
          Further backups, each with stacks, a schedule, a store and a state directory
          of its own. A job has the options that
          {option}`services.docker-stack-backup` has for its stacks, except `docker`,
          `package` and `checkConfig`. It takes over
          `baseDir`, `email` and `onFailure` from there unless it sets them. The units
          of the job `x` are `docker-stack-backup-run-x`, `-recover-x`, `-drill-x` and
          `-verify-x`, and the command `docker-stack-backup-x` has its configuration.
          No stack and no store can be in two jobs.
        '';
        example = lib.literalExpression ''
          {
            media = {
              stacks = [ "jellyfin" ];
              backupDir = "/mnt/usb/docker";
              schedule = "Sun 05:00";
              retention.keepLast = 2;
            };
          }
        '';
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

        host = stackOptions.optional types.str {
          description = ''
            Socket of another Docker Engine than the system's, as in `DOCKER_HOST`,
            such as Podman's, or that of a rootless one. The Engine must run on this
            machine, because the data is read from this machine's file systems. A stack
            may have another one: {option}`services.docker-stack-backup.stacks.<name>.engine`.
          '';
          example = "unix:///run/user/1000/docker.sock";
        };

        dataRoot = mkOption {
          type = stackOptions.absolutePath;
          apply = stackOptions.asString;
          default =
            let
              inherit (config.virtualisation) docker;
              option = builtins.match "(.*[[:space:]])?(--data-root|-g)[[:space:]=]+\"?([^[:space:]\"]+).*" (
                docker.extraOptions or ""
              );
            in
            docker.daemon.settings.data-root
              or (if option == null then "/var/lib/docker" else lib.elemAt option 2);
          defaultText = lib.literalMD "that of `virtualisation.docker`";
          description = ''
            Directory where the Engine keeps its volumes, which the sandbox must show:
            what `docker info --format '{{.DockerRootDir}}'` says. That of a
            rootless Engine is in the home directory of its user.
          '';
          example = "/home/alice/.local/share/docker";
        };
      };
    };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion =
          cfg.docker.host != null
          || config.virtualisation.docker.enable
          || lib.all (job: !lib.elem null job.engines) jobs;
        message = ''
          services.docker-stack-backup needs an Engine for each stack: set
          virtualisation.docker.enable = true, or point
          services.docker-stack-backup.docker.host, or `engine` of each stack, at the
          socket of one.
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
          services.docker-stack-backup.docker.package is Podman, which has no Compose of
          its own. Leave it at pkgs.docker, whose command speaks to Podman, too, and name
          Podman's socket: docker.host = "unix:///run/podman/podman.sock".
        '';
      }
    ]
    ++ sameStack
    ++ allBesideOthers
    ++ sameState
    ++ sameStore
    ++ storeInStack
    ++ lib.concatMap (job: job.assertions) jobs;

    warnings = lib.concatMap (job: job.warnings) jobs;

    environment.systemPackages = [
      command
    ]
    ++ map commandOf (lib.filter (job: job.name != null) jobs);
    environment.etc = ofJobs "etc";

    systemd.tmpfiles.settings."10-docker-stack-backup" = ofJobs "tmpfiles";
    systemd.timers = ofJobs "timers";
    systemd.services = lib.mkMerge (
      map (job: job.services) jobs
      # What a run has stopped is not pruned.
      ++ lib.optional (config.virtualisation.docker.autoPrune.enable or false) {
        docker-prune.after = map (job: job.runUnit) jobs;
      }
    );

    services.logrotate.settings.docker-stack-backup =
      let
        files = lib.unique (lib.filter (file: file != null) (map (job: job.logFile) jobs));
      in
      lib.mkIf (files != [ ]) {
        inherit files;
        frequency = "monthly";
        rotate = 12;
        compress = true;
        missingok = true;
        notifempty = true;
      };
  };

  meta.maintainers = pkgs.docker-stack-backup.meta.maintainers or [ ];
}
