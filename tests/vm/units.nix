# What systemd itself says of the units.
{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    schedule = "*-*-* 03:00";
    randomizedDelaySec = "30min";
    drill.enable = true;
    verify.enable = true;
    inhibitsSleep = true;
    stacks.awkward.path = "/srv/a directory/100%";
  };
}
