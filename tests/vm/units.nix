# What systemd itself says of the units, with paths that it would misread without quotes.
{
  imports = [ ./common.nix ];
  # Each job has a file of metrics of its own there.
  services.prometheus.exporters.node = {
    enable = true;
    extraFlags = [ "--collector.textfile.directory=/var/lib/node-exporter" ];
  };
  services.docker-stack-backup = {
    schedule = "*-*-* 03:00";
    randomizedDelaySec = "30min";
    drill.enable = true;
    verify.enable = true;
    inhibitsSleep = true;
    stacks.awkward.path = "/srv/a directory/100%";
    jobs.awkward = {
      stacks.other = {
        path = "/home/some one/50% off";
        includeBinds = [ "/srv/binds/%n \"quoted\"" ];
        drillSecrets = [ "/run/secrets/%i it" ];
      };
      backupDir = "/srv/a store/%h";
      stateDir = "/srv/a state/100%";
      logFile = "/var/log/some logs/%t.log";
      email = {
        host = "localhost";
        user = "backup";
        passwordFile = "/run/secrets/the password of 100%";
        from = "backup@localhost";
        to = [ "admin@localhost" ];
      };
      drill.enable = true;
      verify.enable = true;
      inhibitsSleep = true;
    };
  };
}
