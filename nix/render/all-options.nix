# Every option set, so that a test can see that the module knows every field of
# the program's configuration, and the program every option of the module.
{
  virtualisation.docker.autoPrune.enable = true;
  virtualisation.oci-containers = {
    backend = "docker";
    containers = {
      immich-server.volumes = [
        "/srv/photos:/data"
        "/mnt/media/pictures:/media"
        "/etc/localtime:/etc/localtime:ro"
        "/run/postgresql:/run/postgresql"
        "model-cache:/cache"
      ];
      immich-db = {
        serviceName = "immich-database";
        volumes = [ "pgdata:/var/lib/postgresql/data:rw,Z" ];
      };
      # As compose2nix makes them: the second one is not started at boot.
      shop-db.volumes = [ "shop_data:/var/lib/mysql:rw" ];
      shop-tools.volumes = [ "/srv/shop/tools:/tools:rw" ];
      other-web.volumes = [ "other_data:/data:rw" ];
    };
  };
  systemd.services = {
    docker-shop-db.partOf = [ "docker-compose-shop-root.target" ];
    docker-shop-tools.requires = [ "docker-network-shop_default.service" ];
    docker-other-web.partOf = [ "docker-compose-other-root.target" ];
  };
  virtualisation.arion = {
    backend = "docker";
    projects.media.settings = {
      services.player.service.volumes = [
        "library:/library"
        "films:/films"
        "/srv/media/config:/config"
        "./relative:/relative"
        {
          type = "bind";
          source = "/srv/media/read-only";
          target = "/read-only";
          read_only = true;
        }
      ];
      docker-compose.volumes = {
        library = null;
        films.external = true;
      };
    };
  };
  users.users.alice = {
    uid = 1001;
    home = "/home/alice";
    linger = true;
  };
  virtualisation.quadlet = {
    containers.wiki.containerConfig.volumes = [
      "wiki.volume:/data"
      "uploads:/uploads:U"
      "/srv/wiki:/srv/wiki"
    ];
    containers.notes = {
      containerConfig.volumes = [ "notes:/data" ];
      rootlessConfig.uid = 1001;
    };
    volumes.wiki.volumeConfig.name = "wiki-data";
  };
  services.docker-stack-backup = {
    enable = true;
    baseDir = "/srv/stacks";
    backupDir = "/srv/backup";
    requireMount = "/srv";
    stateDir = "/srv/./my state//100%";
    metricsFile = "/var/lib/node-exporter/stacks.prom";
    logFile = "/var/log/backup.log";
    ignoreProjects = [ "test-*" ];
    failOnWarning = true;
    stacks.everything = {
      order = 1;
      path = "/srv/elsewhere/everything";
      project = "all";
      files = [ "compose.yml" ];
      envFiles = [ ".env.prod" ];
      exclude = [ "cache/" ];
      excludeCaches = true;
      excludeVolumes = [ "all_cache" ];
      includeVolumes = [ "shared" ];
      includeBinds = [ "/srv/scans" ];
      engine = "unix:///run/user/1001/podman/podman.sock";
      ignoreBinds = [ "/mnt/media" ];
      capture = "offline";
      share = false;
      unshared = [ "pgdata/" ];
      stopMethod = "down";
      stopTimeout = 60;
      startTimeout = 300;
      downLimit = 300;
      captureLimit = 1800;
      stallLimit = 600;
      onBusy = "warn";
      verify = "structure";
      maxAge = "36h";
      chunker = "buzhash,9,16,12,255";
      sizeDrop = 80;
      drill = false;
      drillCheck = [
        "db"
        "true"
      ];
      drillSecrets = [ "/run/secrets/web" ];
      hooks = [
        {
          when = "beforeStop";
          service = "db";
          user = "postgres";
          command = [
            "touch"
            "/flag"
          ];
          timeout = 60;
          onError = "warn";
          undo = [
            "rm"
            "/flag"
          ];
          environment.MODE = "fast";
          secrets.KEY = "/run/secrets/key";
        }
      ];
    };
    stacks.service = {
      units = [ "postgresql.service" ];
      containers = [
        "immich-server"
        "immich-db"
      ];
      paths = [ "/var/lib/postgresql" ];
      ignoreBinds = [ "/mnt/media" ];
      excludeVolumes = [ "model-cache" ];
    };
    stacks.shop.compose2nix = "shop";
    stacks.media.arion = "media";
    stacks.wiki.quadlet = [ "wiki" ];
    stacks.notes.quadlet = [ "notes" ];
    defaults = {
      exclude = [ "*.tmp" ];
      excludeCaches = false;
      excludeVolumes = [ "scratch" ];
      includeVolumes = [ "common" ];
      engine = "unix:///run/podman/podman.sock";
      ignoreBinds = [ "/mnt" ];
      capture = "precopy";
      share = true;
      unshared = [ "*.db" ];
      stopMethod = "stop";
      stopTimeout = 30;
      startTimeout = 200;
      downLimit = 60;
      captureLimit = 3600;
      stallLimit = 1200;
      onBusy = "fail";
      verify = "full";
      maxAge = "2d";
      chunker = "fixed,4096";
      sizeDrop = 60;
      drill = true;
      hooks = [
        {
          when = "finally";
          host = true;
          command = [ "/run/current-system/sw/bin/true" ];
        }
      ];
    };
    retention = {
      keepDays = 1;
      keepLast = 2;
      keepDaily = 3;
      keepWeekly = 4;
      keepMonthly = 5;
      keepYearly = 6;
    };
    email = {
      host = "mail.example.org";
      port = 2525;
      encryption = "tls";
      user = "backup";
      passwordFile = "/run/secrets/smtp";
      caFile = "/etc/ssl/ca.pem";
      from = "backup@example.org";
      to = [ "admin@example.org" ];
      subjectTag = "nas";
      when = "failure";
      remindDays = 7;
      log = "never";
      html = true;
      timeout = 30;
    };
    notify = [
      {
        kind = "ntfy";
        name = "phone";
        urlFile = "/run/secrets/ntfy";
        caFile = "/etc/ssl/ca.pem";
        when = "change";
        remindDays = 7;
        timeout = 30;
      }
      {
        kind = "healthchecks";
        urlFile = "/run/secrets/healthchecks";
      }
    ];
    handover = [
      {
        kind = "restic";
        name = "nas";
        repository = "sftp:restic@nas:stacks";
        passphraseFile = "/run/secrets/restic";
        environment.RESTIC_COMPRESSION = "max";
        secrets.TOKEN = "/run/secrets/token";
        retention.keepDaily = 14;
        checkDays = 7;
        timeLimit = 28800;
      }
      {
        kind = "borg";
        repository = "/mnt/usb/borg";
        checkDays = null;
      }
    ];
    schedule = [
      "Mon 03:00"
      "Thu 04:00"
    ];
    persistent = false;
    randomizedDelaySec = "10min";
    drill = {
      enable = true;
      schedule = "Sun 05:00";
      persistent = false;
      randomizedDelaySec = "20min";
    };
    verify = {
      enable = true;
      schedule = "Sat 05:00";
      timerConfig.AccuracySec = "1h";
    };
    inhibitsSleep = true;
    settings.defaults.verify = "full";
    onSuccess = [ "after.service" ];
    onFailure = [ "alarm.service" ];
    docker = {
      host = "unix:///run/user/1000/docker.sock";
      dataRoot = "/home/docker";
    };
    jobs.other = {
      stacks = [ "b" ];
      email = null;
      schedule = null;
    };
  };
}
