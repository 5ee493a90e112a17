# Stacks of units: a service of the machine with one that needs it, and a container that a
# unit runs, as those of `virtualisation.oci-containers` are.
{ lib, pkgs, ... }:
let
  docker = "${pkgs.docker}/bin/docker";
  service = {
    path = [
      pkgs.bash
      pkgs.coreutils
    ];
  };
in
{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    stacks = {
      cache = {
        units = [ "docker-cache.service" ];
        paths = [ "/srv/cache" ];
      };
      ledger = {
        units = [ "ledger.service" ];
        paths = [
          "/var/lib/ledger"
          "/srv/ledger.conf"
        ];
        # The longer a stack is down, the easier it is killed then.
        capture = "offline";
      };
    };
  };
  systemd.services = {
    ledger = service // {
      description = "A service that writes to its data";
      wantedBy = [ "multi-user.target" ];
      unitConfig.ConditionPathExists = "/var/lib/ledger";
      serviceConfig = {
        ExecStart = "/etc/dsb-test/ledger /var/lib/ledger";
        Restart = "always";
      };
    };
    # Nothing but an administrator starts it.
    ledger-reader = service // {
      description = "A service that needs the one that writes";
      requires = [ "ledger.service" ];
      after = [ "ledger.service" ];
      serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
    };
    bystander = service // {
      description = "A service that has nothing to do with the others";
      serviceConfig.ExecStart = "${pkgs.coreutils}/bin/sleep infinity";
    };
    docker-cache = {
      description = "A container that is removed when it ends";
      requires = [ "docker.service" ];
      after = [ "docker.service" ];
      serviceConfig = {
        ExecStartPre = "-${docker} rm --force cache";
        ExecStart = lib.concatStringsSep " " [
          "${docker} run --name=cache --rm --log-driver=journald --stop-timeout=1"
          "--volume=/srv/cache:/data docker-stack-backup/busybox:1 sleep infinity"
        ];
        ExecStop = "-${docker} stop cache";
        ExecStopPost = "-${docker} rm --force cache";
        Restart = "always";
        TimeoutStartSec = 0;
        TimeoutStopSec = 120;
      };
    };
  };
}
