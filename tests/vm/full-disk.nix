{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    stacks = [ "web" ];
    # Nothing is written before the stop.
    defaults.capture = "offline";
    # A small file system, which the script mounts.
    backupDir = "/srv/small/backup";
  };
}
