{
  imports = [ ./common.nix ];
}
