# Evaluates configurations with the modules of NixOS itself that ours sets options of or
# reads, where render's stand-ins take anything. What these in turn set of the rest of
# NixOS is accepted as it is. Returns the units by which a machine backs up, as texts.
{ nixpkgs }:
let
  render = import ./. { inherit nixpkgs; };
  inherit (render) lib utils;
  inherit (lib) types;
  inherit (utils.systemdUtils.lib) serviceToUnit timerToUnit;
  nixos = nixpkgs + "/nixos/modules";
  modules = map (path: nixos + path) [
    "/misc/assertions.nix"
    "/misc/ids.nix"
    "/services/backup/borgbackup.nix"
    "/services/backup/restic.nix"
    "/services/logging/logrotate.nix"
    "/system/boot/systemd.nix"
    "/system/boot/systemd/tmpfiles.nix"
    "/system/etc/etc.nix"
    "/virtualisation/docker.nix"
  ];
  # A stand-in for each package that these modules name.
  named =
    file:
    lib.concatLists (
      lib.filter lib.isList (builtins.split "pkgs\\.([[:alpha:]][[:alnum:]_-]*)" (builtins.readFile file))
    );
  standIns = import ./stand-in-pkgs.nix { inherit lib; };
  pkgs =
    lib.genAttrs (lib.concatMap named modules) (
      name:
      standIns.docker
      // {
        inherit name;
        pname = name;
      }
    )
    // standIns
    // {
      writeTextFile = { name, text, ... }: standIns.writeText name text;
      # Neither makes anything here.
      writeText = standIns.writeText;
      runCommand =
        name: _env: _script:
        standIns.writeText name "";
      writeScript = standIns.writeText;
      writeShellScript = standIns.writeText;
      writers.writeBash = standIns.writeText;
    };

  # All else of NixOS, which the stand-ins check.
  rest = {
    _module.freeformType = types.lazyAttrsOf types.anything;
    lib.kernelConfig.isEnabled = name: name;
    networking.proxy.envVars = { };
    programs.ssh.package = pkgs.openssh;
    system.fsPackages = [ ];
    users.groups.utmp.name = "utmp";
    users.users.root.home = "/root";
  };

  evaluate =
    system: configuration:
    lib.evalModules {
      specialArgs = {
        inherit utils;
        pkgs = pkgs // {
          stdenv = pkgs.stdenv // {
            hostPlatform = lib.systems.elaborate system;
            isx86_64 = system == "x86_64-linux";
          };
        };
      };
      modules = modules ++ [
        ./stand-in-others.nix
        ./stand-in-secrets.nix
        rest
        ../../nixos-module.nix
        configuration
      ];
    };
  units =
    system: configuration:
    let
      config = render.checked (evaluate system configuration).config;
      texts = toUnit: lib.mapAttrs (_: unit: (toUnit unit).text);
      services = texts serviceToUnit config.systemd.services;
      ours = lib.filterAttrs (name: _: lib.hasPrefix "docker-stack-backup" name);
    in
    # Those of others as well, such as Borg's, for what the configuration sets of them.
    builtins.deepSeq
      [
        services
        config.systemd.tmpfiles.rules
      ]
      {
        services = ours services;
        timers = ours (texts timerToUnit config.systemd.timers);
      };
in
{
  inherit units;
}
