# The NixOS module. `nix/module` is a directory that nixpkgs could take as it is.
{
  imports = [ ./nix/module ];
}
