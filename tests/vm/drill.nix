{
  imports = [ ./common.nix ];
  services.docker-stack-backup.drill = {
    enable = true;
    schedule = "Sun 05:00";
  };
}
