{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    stacks = [ "web" ];
    inhibitsSleep = true;
    # The longer a stack is down, the easier it is killed then.
    defaults.capture = "offline";
  };
}
