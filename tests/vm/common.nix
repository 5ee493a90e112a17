# What the machines of all scenarios have in common, on NixOS and, rendered, on
# Debian.
{ lib, ... }:
{
  services.docker-stack-backup = {
    enable = true;
    baseDir = "/srv/stacks";
    backupDir = lib.mkDefault "/srv/backup";
    stacks = lib.mkDefault [
      "db"
      "web"
    ];
    # A machine under emulation is slow.
    defaults.startTimeout = 300;
    email = {
      host = "localhost";
      user = "backup";
      passwordFile = "/run/secrets/mail-password";
      caFile = "/etc/dsb-mail/ca.pem";
      from = "backup@localhost";
      to = [ "admin@localhost" ];
    };
  };
}
