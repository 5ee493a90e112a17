# A disk that does not come up at boot holds one of three stacks, and the store of a job.
{
  imports = [ ./common.nix ];
  systemd.mounts = [
    {
      where = "/srv/disk";
      what = "/srv/disk.img";
      type = "ext4";
      options = "loop";
      wantedBy = [ "multi-user.target" ];
    }
  ];
  services.docker-stack-backup = {
    stacks = {
      db.order = 1;
      files = {
        order = 2;
        path = "/srv/disk/files";
      };
      web.order = 3;
    };
    # The longer a stack is down, the easier the power is cut then.
    defaults.capture = "offline";
    jobs.second = {
      stacks = [ "other" ];
      backupDir = "/srv/disk/backup";
    };
  };
}
