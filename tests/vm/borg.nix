{
  imports = [ ./common.nix ];

  services.docker-stack-backup = {
    stacks = [ "web" ];
    onSuccess = [ "borgbackup-job-stacks.service" ];
  };

  services.borgbackup.jobs.stacks = {
    paths = [ "/srv/backup" ];
    exclude = [ "*.partial" ];
    repo = "/srv/borg";
    encryption.mode = "none";
    compression = "none";
    # Data begins at multiples of 4096 in the archives.
    extraCreateArgs = [
      "--chunker-params"
      "fixed,4096"
    ];
    # Started by a good run.
    startAt = [ ];
  };
}
