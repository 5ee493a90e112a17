# What must hold where nixpkgs has NixOS, as a list of what does not:
# - NixOS's own modules make of our module, of every scenario and of every example in the
#   documentation (the files in `examples`) the same units as the stand-ins do, on both
#   systems;
# - the flake has the same outputs for both systems;
# - what contrib/nixpkgs/assemble has put into `assembled`, a copy of the parts of nixpkgs
#   that it changes, is the same module, tests and package as here.
{
  nixpkgs,
  assembled,
  examples,
}:
let
  render = import ./. { inherit nixpkgs; };
  there = import ./. {
    inherit nixpkgs;
    module = assembled + "/nixos/modules/services/backup/docker-stack-backup";
  };
  inherit (render) lib;

  real = import ./real.nix { inherit nixpkgs; };

  configurations = {
    all-options = ./all-options.nix;
  }
  // lib.mapAttrs (_: machine: machine) scenarioMachines
  // lib.mapAttrs (name: _: {
    imports = [ (examples + "/${name}") ];
    services.docker-stack-backup = {
      enable = true;
      stacks = lib.mkDefault [ "web" ];
    };
  }) (builtins.readDir examples);
  scenarioMachines = import ../../tests/vm {
    inherit lib;
    runTest = test: lib.last (test { hostPkgs = { }; }).nodes.machine.imports;
  };
  sameUnits =
    system: configuration:
    let
      enabled = {
        imports = [ configuration ];
        virtualisation.docker.enable = true;
      };
      files = render.files enabled;
      unitsOf =
        suffix:
        lib.mapAttrs' (name: file: lib.nameValuePair (lib.removeSuffix suffix (baseNameOf name)) file.text)
          (
            lib.filterAttrs (
              name: _: lib.hasPrefix "etc/systemd/system/docker-stack-backup" name && lib.hasSuffix suffix name
            ) files
          );
      actual = real.units system enabled;
    in
    actual.services == unitsOf ".service" && actual.timers == unitsOf ".timer";

  systems = [
    "x86_64-linux"
    "aarch64-linux"
  ];
  flake = lib.fix (
    self:
    (import ../../flake.nix).outputs {
      inherit self;
      nixpkgs = {
        inherit lib;
        legacyPackages = lib.genAttrs systems (system: {
          stdenv.hostPlatform = { inherit system; };
          callPackage = call;
        });
      };
    }
  );
  flakeOf = system: {
    version = flake.packages.${system}.default.version;
    checks = lib.attrNames flake.checks.${system};
    others = lib.all (output: flake.${output} ? ${system}) [
      "apps"
      "devShells"
      "formatter"
    ];
  };

  modules = import (assembled + "/nixos/modules/module-list.nix");
  # Only the names are looked at: a test is a machine, which needs packages.
  tests = import (assembled + "/nixos/tests/all-tests.nix") {
    system = "x86_64-linux";
    pkgs = { inherit lib; };
    callTest = throw "no test is run";
  };
  scenarios = import ../../tests/vm {
    inherit lib;
    runTest = throw "no test is run";
  };

  # As buildRustPackage does it: the function is given its own result.
  buildRustPackage =
    definition:
    let
      final = definition final // {
        overrideAttrs = change: final // change final;
      };
    in
    final;
  call =
    file: arguments:
    let
      wanted = lib.functionArgs (import file);
      standIns = lib.genAttrs (lib.attrNames wanted) (name: "/stand-in/${name}") // {
        inherit lib;
        stdenv.hostPlatform = {
          emulatorAvailable = _: true;
          emulator = _: "";
        };
        rustPlatform = {
          inherit buildRustPackage;
          importCargoLock =
            lock:
            assert lib.pathExists lock.lockFile;
            "/stand-in/vendor";
        };
        fetchFromGitHub = source: source;
        callPackage = call;
        nix-update-script = _: "";
        nixosTests = tests;
      };
    in
    import file (builtins.intersectAttrs wanted (standIns // arguments));
  package = call (assembled + "/pkgs/by-name/do/docker-stack-backup/package.nix") { };
  ours = call ../package.nix { };
  manifest = (lib.importTOML ../../Cargo.toml).package;

  namesAndTypes = of: map (option: "${option.name}: ${option.type}") of.options;

  checks =
    lib.concatMapAttrs (
      name: configuration:
      lib.listToAttrs (
        map
          (
            system:
            lib.nameValuePair "NixOS makes the same units of ${name} (${system})" (
              sameUnits system configuration
            )
          )
          [
            "x86_64-linux"
            "aarch64-linux"
          ]
      )
    ) configurations
    // {
      "the flake is the same on both systems" = lib.length (lib.unique (map flakeOf systems)) == 1;
      "the flake has the package, and a check for each scenario" =
        let
          outputs = flakeOf "x86_64-linux";
        in
        outputs.version == manifest.version
        && outputs.others
        && lib.all (name: lib.elem "vm-${name}" outputs.checks) (lib.attrNames scenarios);
      "the flake's module takes its package from the machine" =
        (flake.nixosModules.default { pkgs.callPackage = call; })
        .services.docker-stack-backup.package.content.version == manifest.version;
      "the module is in the list" = lib.elem (
        assembled + "/nixos/modules/services/backup/docker-stack-backup"
      ) modules;
      "the module there makes the same units" =
        render.files ./all-options.nix == there.files ./all-options.nix;
      "the module there has the same options" = namesAndTypes render == namesAndTypes there;
      "the tests are the scenarios" = lib.attrNames tests.docker-stack-backup == lib.attrNames scenarios;
      "the package has the version of Cargo.toml" = package.version == manifest.version;
      "the package has the description of Cargo.toml" = package.meta.description == manifest.description;
      "the package has its tests" = lib.attrNames package.passthru.tests == lib.attrNames scenarios;
      "the tag is that of the version" = package.src.tag == "v${manifest.version}";
      "our package is that of nixpkgs" =
        ours.postInstall == package.postInstall
        && ours.checkFlags == package.checkFlags
        && ours.nativeBuildInputs == package.nativeBuildInputs;
      "our package has no hash of another source" = ours.cargoDeps == "/stand-in/vendor";
    };
in
lib.attrNames (lib.filterAttrs (_: holds: !holds) checks)
