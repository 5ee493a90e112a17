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
in
{
  imports = [
    ./stand-in-others.nix
    ./stand-in-secrets.nix
  ];

  options = {
    nixpkgs.overlays = mkOption {
      type = types.listOf types.raw;
      default = [ ];
    };
    boot = loose;
    meta = loose;
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
    services.prometheus = loose;
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
      targets = mkOption {
        type = utils.systemdUtils.types.targets;
        default = { };
      };
      mounts = mkOption {
        type = utils.systemdUtils.types.mounts;
        default = [ ];
      };
      tmpfiles.settings = mkOption {
        type = types.attrsOf (types.attrsOf (types.attrsOf (types.attrsOf types.str)));
        default = { };
      };
    };
    users = loose;
    virtualisation = {
      docker = loose;
      oci-containers = loose;
      podman = loose;
    };
  };

  config.virtualisation.docker = {
    enable = lib.mkDefault true;
    package = lib.mkDefault pkgs.docker;
  };
}
