{ config, ... }:
{
  virtualisation.docker.enable = true;

  services.docker-stack-backup = {
    enable = true;
    schedule = "03:00";
    backupDir = "/mnt/backup/docker";
    # The lowest order first; the proxy comes last, so that visitors see its error page.
    stacks = {
      vaultwarden = {
        order = 1;
        exclude = [ "/vw-data/icon_cache/" ];
      };
      nextcloud = {
        order = 2;
        includeBinds = [ "/srv/nextcloud-data" ];
        exclude = [ "/appdata_*/preview/" ];
        drillCheck = [
          "db"
          "psql"
          "-U"
          "nextcloud"
          "-c"
          "select count(*) from oc_filecache"
        ];
      };
      immich = {
        order = 3;
        includeBinds = [ "/srv/photos" ];
        exclude = [
          "/thumbs/"
          "/encoded-video/"
        ];
        excludeVolumes = [ "immich_model-cache" ];
        startTimeout = 600;
      };
      paperless = {
        order = 4;
        exclude = [ "/export/" ];
      };
      proxy.order = 5;
    };
    defaults = {
      stopTimeout = 120;
      excludeCaches = true;
    };
    retention = {
      keepDays = 7;
      keepWeekly = 4;
      keepMonthly = 6;
    };
    email = {
      host = "mail.example.org";
      user = "backup@example.org";
      passwordFile = "/run/secrets/smtp-password";
      from = "backup@example.org";
      to = [ "admin@example.org" ];
    };
    drill.enable = true;
    onSuccess = [ "borgbackup-job-stacks.service" ];
  };

  services.borgbackup.jobs.stacks = {
    paths = [ config.services.docker-stack-backup.backupDir ];
    exclude = [ "*.partial" ];
    repo = "ssh://borg@backup.example.org/./stacks";
    encryption = {
      mode = "repokey-blake2";
      passCommand = "cat /run/secrets/borg-passphrase";
    };
    # Archives are laid out for this.
    extraCreateArgs = [
      "--chunker-params"
      "fixed,4096"
    ];
    startAt = [ ];
    prune.keep = {
      daily = 7;
      weekly = 4;
      monthly = 6;
    };
  };
}
