{
  description = "Backs up Docker Compose stacks, one after another: stop, archive, start";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forAllSystems = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});
      packageFor = pkgs: self.packages.${pkgs.stdenv.hostPlatform.system}.default;
    in
    {
      packages = forAllSystems (pkgs: {
        default = pkgs.callPackage ./nix/package.nix { };
      });

      apps = forAllSystems (pkgs: {
        default = {
          type = "app";
          program = lib.getExe (packageFor pkgs);
          meta.description = "Back up Docker Compose stacks";
        };
      });

      overlays.default = final: _prev: {
        docker-stack-backup = final.callPackage ./nix/package.nix { };
      };

      nixosModules.default =
        { pkgs, ... }:
        {
          imports = [ ./nixos-module.nix ];
          # Of the system's own packages, so that overlays and cross builds apply.
          services.docker-stack-backup.package = lib.mkDefault (pkgs.callPackage ./nix/package.nix { });
        };

      checks = forAllSystems (
        pkgs:
        import ./nix/checks.nix {
          inherit lib pkgs;
          package = packageFor pkgs;
          nixosModule = self.nixosModules.default;
        }
      );

      devShells = forAllSystems (pkgs: {
        default = pkgs.mkShell {
          inputsFrom = [ (packageFor pkgs) ];
          packages = [
            pkgs.cargo
            pkgs.clippy
            pkgs.deadnix
            pkgs.docker-client
            pkgs.nixfmt
            pkgs.rust-analyzer
            pkgs.rustc
            pkgs.rustfmt
          ];
        };
      });

      formatter = forAllSystems (pkgs: pkgs.nixfmt-tree);
    };
}
