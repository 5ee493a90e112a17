{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    stacks = [ "web" ];
    # A small file system, which the script mounts.
    backupDir = "/srv/small/backup";
  };
}
