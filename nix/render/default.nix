# What the module makes of a scenario, as texts by file name, and the reference
# of its options: evaluated with nixpkgs' own `lib` and systemd option types, but
# without building anything, so that it needs no store and no network.
#
# `nixpkgs`: a checkout, or of one `lib/`, `nixos/lib/{utils,systemd-*}.nix`
# and `nixos/modules/misc/assertions.nix`.
{ nixpkgs }:
let
  lib = import (nixpkgs + "/lib");
  pkgs = import ./stand-in-pkgs.nix { inherit lib; };
  utils = import (nixpkgs + "/nixos/lib/utils.nix") {
    inherit lib pkgs;
    config.systemd = {
      package = pkgs.systemd;
      globalEnvironment = { };
      enableStrictShellChecks = false;
    };
  };

  evaluate =
    module:
    lib.evalModules {
      specialArgs = { inherit pkgs utils; };
      modules = [
        (nixpkgs + "/nixos/modules/misc/assertions.nix")
        ./stand-in-nixos.nix
        ../../nixos-module.nix
        module
      ];
    };

  # As NixOS does: assertions end it, warnings are told.
  checked =
    config:
    let
      failed = lib.filter (assertion: !assertion.assertion) config.assertions;
    in
    if failed != [ ] then
      throw "\nFailed assertions:\n${lib.concatMapStringsSep "\n" (a: "- ${a.message}") failed}"
    else
      lib.showWarnings config.warnings config;

  inherit (utils.systemdUtils.lib) serviceToUnit timerToUnit;

  unitFiles =
    config:
    let
      services = lib.mapAttrs' (
        name: unit: lib.nameValuePair "${name}.service" (serviceToUnit unit)
      ) config.systemd.services;
      timers = lib.mapAttrs' (
        name: unit: lib.nameValuePair "${name}.timer" (timerToUnit unit)
      ) config.systemd.timers;
    in
    services // timers;

  # NixOS has no [Install] sections: a unit is wanted by a link.
  linksOf =
    name: unit:
    lib.listToAttrs (
      map (by: lib.nameValuePair "etc/systemd/system/${by}.wants/${name}" { link = "../${name}"; }) (
        unit.wantedBy or [ ]
      )
    );

  tmpfiles =
    settings:
    lib.mapAttrs' (
      file: byPath:
      lib.nameValuePair "etc/tmpfiles.d/${file}.conf" {
        text = lib.concatStrings (
          lib.flatten (
            lib.mapAttrsToList (
              path: byType:
              lib.mapAttrsToList (type: e: "${type} '${path}' ${e.mode} ${e.user} ${e.group} - -\n") byType
            ) byPath
          )
        );
      }
    ) settings;

  files =
    module:
    let
      config = checked (evaluate module).config;
      units = unitFiles config;
    in
    lib.mapAttrs' (
      name: entry: lib.nameValuePair "etc/${name}" { inherit (entry.source) json; }
    ) config.environment.etc
    // lib.mapAttrs' (
      name: unit: lib.nameValuePair "etc/systemd/system/${name}" { inherit (unit) text; }
    ) units
    // lib.concatMapAttrs linksOf units
    // tmpfiles config.systemd.tmpfiles.settings;

  options = lib.filter (option: option.visible && !option.internal) (
    lib.optionAttrSetToDocList (evaluate { }).options.services.docker-stack-backup
  );
in
{
  inherit lib files options;
  evaluate = module: checked (evaluate module).config;
}
