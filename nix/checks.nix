# What `nix flake check` builds: the package with its tests, the formatters, and
# a virtual machine for each scenario in tests/vm.
{
  lib,
  pkgs,
  package,
  nixosModule,
}:
let
  scenarios = import ../tests/vm {
    inherit lib nixosModule;
    runTest = pkgs.testers.runNixOSTest;
  };

  # Builds nothing: runs `command` over the source tree.
  sourceCheck =
    name: tools: command:
    pkgs.runCommandLocal "docker-stack-backup-${name}" { nativeBuildInputs = tools; } ''
      cd ${lib.cleanSource ../.}
      ${command}
      touch $out
    '';

  # A configuration that must not build, and what its log must say.
  refused =
    name: settings: message:
    let
      machine = pkgs.nixos {
        imports = [ nixosModule ];
        virtualisation.docker.enable = true;
        services.docker-stack-backup = {
          enable = true;
        }
        // settings;
        boot.isContainer = true;
        system.stateVersion = lib.trivial.release;
      };
      config = machine.config.environment.etc."docker-stack-backup/config.json".source;
    in
    pkgs.runCommandLocal "docker-stack-backup-refused-${name}"
      { failed = pkgs.testers.testBuildFailure config; }
      ''
        grep -F ${lib.escapeShellArg message} $failed/testBuildFailure.log
        touch $out
      '';
in
lib.mapAttrs' (name: lib.nameValuePair "vm-${name}") scenarios
// {
  inherit package;

  clippy = package.overrideAttrs (old: {
    pname = "${old.pname}-clippy";
    nativeBuildInputs = old.nativeBuildInputs ++ [ pkgs.clippy ];
    buildPhase = "cargo clippy --all-targets --locked --offline -- -D warnings";
    doCheck = false;
    doInstallCheck = false;
    installPhase = "touch $out";
    postInstall = "";
    postFixup = "";
  });

  rustfmt = sourceCheck "rustfmt" [ pkgs.cargo pkgs.rustfmt ] "cargo fmt --check";
  nixfmt = sourceCheck "nixfmt" [ pkgs.nixfmt ] "find . -name '*.nix' -exec nixfmt --check {} +";
  deadnix = sourceCheck "deadnix" [ pkgs.deadnix ] "deadnix --fail .";

  refused-pattern = refused "pattern" { stacks.web.exclude = [ "[" ]; } "exclude";
  refused-retention = refused "retention" {
    stacks = [ "web" ];
    retention.keepLast = 0;
  } "retention";
}
