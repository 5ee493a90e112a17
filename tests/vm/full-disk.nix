{
  imports = [ ./common.nix ];
  # A small file system, which the script mounts.
  services.docker-stack-backup.backupDir = "/srv/small/backup";
}
