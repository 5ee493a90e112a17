# The options of NixOS that the module and the scenarios set. Units have NixOS's
# own types; of the others only what is looked at here is typed.
{
  lib,
  utils,
  pkgs,
  ...
}:
let
  inherit (lib) mkOption types;
  loose = mkOption {
    type = types.lazyAttrsOf types.anything;
    default = { };
  };
  # agenix and sops-nix: a secret is a file below `dir`.
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
    nixpkgs.overlays = mkOption {
      type = types.listOf types.raw;
      default = [ ];
    };
    boot = loose;
    environment = {
      etc = mkOption {
        type = types.attrsOf (types.submodule { options.source = mkOption { type = types.raw; }; });
        default = { };
      };
      systemPackages = mkOption {
        type = types.listOf types.raw;
        default = [ ];
      };
    };
    networking = loose;
    services.borgbackup = loose;
    services.logrotate = loose;
    services.restic = loose;
    system = loose;
    systemd = {
      services = mkOption {
        type = utils.systemdUtils.types.services;
        default = { };
      };
      timers = mkOption {
        type = utils.systemdUtils.types.timers;
        default = { };
      };
      tmpfiles.settings = mkOption {
        type = types.attrsOf (types.attrsOf (types.attrsOf (types.attrsOf types.str)));
        default = { };
      };
    };
    users = loose;
    virtualisation = loose;
  };

  config.virtualisation.docker = {
    enable = lib.mkDefault true;
    package = lib.mkDefault pkgs.docker;
  };
}
