# The scenarios as NixOS tests. A scenario is a machine (NAME.nix) and what happens to it
# (NAME.py). In nixpkgs, `nixos/tests/docker-stack-backup` would be this directory.
{
  lib,
  runTest,
  # The module, where NixOS does not have it.
  nixosModule ? { },
}:
let
  files = builtins.readDir ./.;
  scenarios = lib.filter (name: files ? "${name}.py") (
    map (lib.removeSuffix ".nix") (lib.filter (lib.hasSuffix ".nix") (lib.attrNames files))
  );
in
lib.genAttrs scenarios (
  name:
  runTest (
    { hostPkgs, ... }:
    {
      name = "docker-stack-backup-${name}";
      meta.maintainers = hostPkgs.docker-stack-backup.meta.maintainers or [ ];
      nodes.machine.imports = [
        nixosModule
        ./nixos.nix
        (./. + "/${name}.nix")
      ];
      testScript = builtins.readFile (./. + "/${name}.py");
    }
  )
)
