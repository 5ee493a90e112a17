# What the module makes of a scenario, as texts by file name, and the reference
# of its options: evaluated with nixpkgs' own `lib` and systemd option types, but
# without building anything, so that it needs no store and no network.
#
# `nixpkgs`: a checkout, or of one `lib/`, `nixos/lib/{utils,systemd-*}.nix`
# and `nixos/modules/misc/assertions.nix`.
{
  nixpkgs,
  module ? ../../nixos-module.nix,
}:
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
    configuration:
    lib.evalModules {
      specialArgs = { inherit pkgs utils; };
      modules = [
        (nixpkgs + "/nixos/modules/misc/assertions.nix")
        ./stand-in-nixos.nix
        module
        configuration
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

  inherit (utils.systemdUtils.lib)
    mountToUnit
    serviceToUnit
    targetToUnit
    timerToUnit
    ;

  unitFiles =
    config:
    let
      services = lib.mapAttrs' (
        name: unit: lib.nameValuePair "${name}.service" (serviceToUnit unit)
      ) config.systemd.services;
      timers = lib.mapAttrs' (
        name: unit: lib.nameValuePair "${name}.timer" (timerToUnit unit)
      ) config.systemd.timers;
      targets = lib.mapAttrs' (
        name: unit: lib.nameValuePair "${name}.target" (targetToUnit unit)
      ) config.systemd.targets;
      mounts = lib.listToAttrs (
        map (unit: lib.nameValuePair unit.name (mountToUnit unit)) config.systemd.mounts
      );
    in
    services // targets // timers // mounts;

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

  # A file is in the store, and a link to it in /etc.
  etcFiles =
    name: entry:
    if entry.source ? text then
      {
        "etc/${name}".link = entry.source.outPath;
        ${lib.removePrefix "/" entry.source.outPath} = { inherit (entry.source) text; };
      }
    else
      { "etc/${name}" = { inherit (entry.source) json; }; };

  files =
    configuration:
    let
      config = checked (evaluate configuration).config;
      units = unitFiles config;
    in
    lib.concatMapAttrs etcFiles config.environment.etc
    // lib.optionalAttrs (config.virtualisation.docker.daemon.settings or { } != { }) {
      "etc/docker/daemon.json".json = config.virtualisation.docker.daemon.settings;
    }
    // lib.mapAttrs' (
      name: unit: lib.nameValuePair "etc/systemd/system/${name}" { inherit (unit) text; }
    ) units
    // lib.concatMapAttrs linksOf units
    // tmpfiles config.systemd.tmpfiles.settings;

  # A job's options are those of the simple form.
  isOfJob = option: lib.hasInfix ".jobs.<name>." option.name;
  options = lib.filter (option: option.visible && !option.internal && !isOfJob option) (
    lib.optionAttrSetToDocList (evaluate { }).options.services.docker-stack-backup
  );
in
{
  inherit
    checked
    files
    lib
    options
    utils
    ;
  evaluate = configuration: checked (evaluate configuration).config;
}
