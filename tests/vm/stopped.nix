{
  imports = [ ./common.nix ];
  # A socket below /run/user, as that of a rootless Engine.
  services.docker-stack-backup.docker.host = "unix:///run/user/engine/docker.sock";
}
