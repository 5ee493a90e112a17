{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    stacks = [ "web" ];
    retention.keepDays = 3;
  };
}
