# The options of agenix and sops-nix, which NixOS does not have: a secret is a file.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  secretsBelow =
    dir:
    mkOption {
      type = types.attrsOf (
        types.submodule (
          { name, ... }:
          {
            options = {
              file = mkOption { type = types.raw; };
              path = mkOption {
                type = types.str;
                default = "${dir}/${name}";
              };
            };
          }
        )
      );
      default = { };
    };
in
{
  options = {
    age.secrets = secretsBelow "/run/agenix";
    sops.secrets = secretsBelow "/run/secrets";
  };
}
