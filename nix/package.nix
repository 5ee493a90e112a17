# The package as nixpkgs would have it, of the sources beside this file.
{
  lib,
  callPackage,
  rustPlatform,
}:
let
  manifest = lib.importTOML ../Cargo.toml;
in
(callPackage ../contrib/nixpkgs/package.nix { }).overrideAttrs (old: {
  pname = manifest.package.name;
  inherit (manifest.package) version;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../Cargo.toml
      ../Cargo.lock
      # Tests read what the documents show.
      ../CHANGELOG.md
      ../README.md
      ../SECURITY.md
      ../contrib
      ../docs
      ../examples
      ../src
      ../tests
    ];
  };
  cargoDeps = rustPlatform.importCargoLock { lockFile = ../Cargo.lock; };

  # What only nixpkgs has.
  passthru = removeAttrs old.passthru [ "tests" ];
  meta =
    removeAttrs old.meta [
      "changelog"
      "homepage"
      "maintainers"
    ]
    // {
      inherit (manifest.package) description;
    };
})
