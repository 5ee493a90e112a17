# Containers go on while the Engine is restarted.
{
  imports = [ ./common.nix ];
  virtualisation.docker.daemon.settings.live-restore = true;
  # The longer a stack is down, the easier the Engine is restarted then.
  services.docker-stack-backup.defaults.capture = "offline";
}
