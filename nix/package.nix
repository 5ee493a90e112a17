{
  lib,
  rustPlatform,
  stdenv,
  installShellFiles,
  makeWrapper,
  docker-client,
  # What the tests read archives and metadata with.
  acl,
  attr,
  gnutar,
  libarchive,
  libcap,
  python3,
}:
let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
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
      ../docs
      ../examples
      ../src
      ../tests
    ];
  };
  cargoLock.lockFile = ../Cargo.lock;

  nativeBuildInputs = [
    installShellFiles
    makeWrapper
  ];

  # Tests that need a Docker Engine are ignored here; the VM tests have one.
  nativeCheckInputs = [
    acl
    attr
    gnutar
    libarchive
    libcap
    python3
  ];

  postInstall =
    lib.optionalString (stdenv.buildPlatform.canExecute stdenv.hostPlatform) ''
      $out/bin/docker-stack-backup man-pages man
      installManPage man/*
      installShellCompletion --cmd docker-stack-backup \
        --bash <($out/bin/docker-stack-backup completions bash) \
        --fish <($out/bin/docker-stack-backup completions fish) \
        --zsh <($out/bin/docker-stack-backup completions zsh)
    ''
    # A suffix: the docker of the system, made for its Engine, comes first.
    + ''
      wrapProgram $out/bin/docker-stack-backup \
        --suffix PATH : ${lib.makeBinPath [ docker-client ]}
    '';

  meta = {
    inherit (manifest.package) description;
    license = lib.licenses.mit;
    mainProgram = manifest.package.name;
    platforms = lib.platforms.linux;
  };
}
