# Options of modules that NixOS does not have, as far as ours reads or sets them: Arion,
# quadlet-nix, Clan and Self Host Blocks.
{ lib, ... }:
let
  inherit (lib) mkOption types;
  anything = mkOption {
    type = types.lazyAttrsOf types.anything;
    default = { };
  };
  some = type: mkOption { inherit type; };
  orNull =
    type:
    mkOption {
      type = types.nullOr type;
      default = null;
    };
  listOf =
    type:
    mkOption {
      type = types.listOf type;
      default = [ ];
    };
  submodules =
    options:
    mkOption {
      type = types.attrsOf (types.submodule { inherit options; });
      default = { };
    };
in
{
  options = {
    virtualisation.arion = {
      backend = some (
        types.enum [
          "podman-socket"
          "docker"
        ]
      );
      projects = mkOption {
        type = types.attrsOf (
          types.submodule (
            { name, ... }:
            {
              options = {
                settings = anything;
                serviceName = mkOption {
                  type = types.str;
                  default = "arion-${name}";
                };
              };
            }
          )
        );
        default = { };
      };
    };
    virtualisation.quadlet = {
      containers = submodules {
        containerConfig = {
          image = orNull types.str;
          name = orNull types.str;
          volumes = listOf types.str;
        };
        rootlessConfig.uid = orNull types.int;
      };
      volumes = submodules {
        volumeConfig = {
          name = orNull types.str;
          device = orNull types.str;
          driver = orNull types.str;
        };
      };
    };
    clan.core.state = submodules {
      folders = listOf types.str;
      preBackupScript = orNull types.lines;
      postBackupScript = orNull types.lines;
      preRestoreScript = orNull types.lines;
      postRestoreScript = orNull types.lines;
    };
    # The request of the contract for backups, as one of its services makes it.
    shb.vaultwarden.backup.request = {
      user = some types.str;
      sourceDirectories = some (types.nonEmptyListOf types.str);
      excludePatterns = listOf types.str;
      hooks = {
        beforeBackup = listOf types.str;
        afterBackup = listOf types.str;
      };
    };
  };

  config.shb.vaultwarden.backup.request = {
    user = "vaultwarden";
    sourceDirectories = [ "/var/lib/vaultwarden" ];
    excludePatterns = [ "icon_cache/" ];
    hooks.beforeBackup = [ "/run/current-system/sw/bin/true" ];
  };
}
