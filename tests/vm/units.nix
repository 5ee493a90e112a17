# What systemd itself says of the units.
{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    schedule = "*-*-* 03:00";
    randomizedDelaySec = "30min";
    drill.enable = true;
  };
}
