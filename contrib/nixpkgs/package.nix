{
  lib,
  rustPlatform,
  fetchFromGitHub,
  stdenv,
  buildPackages,
  installShellFiles,
  makeBinaryWrapper,
  docker-client,
  # What the tests read archives and metadata with.
  acl,
  attr,
  gnutar,
  libarchive,
  libcap,
  python3,
  versionCheckHook,
  nixosTests,
  nix-update-script,
}:
rustPlatform.buildRustPackage (finalAttrs: {
  pname = "docker-stack-backup";
  version = "0.1.0";

  __structuredAttrs = true;
  strictDeps = true;

  src = fetchFromGitHub {
    owner = "OWNER";
    repo = "docker-stack-backup";
    tag = "v${finalAttrs.version}";
    hash = lib.fakeHash;
  };

  cargoHash = lib.fakeHash;

  nativeBuildInputs = [
    installShellFiles
    makeBinaryWrapper
  ];

  nativeCheckInputs = [
    acl
    attr
    gnutar
    libarchive
    libcap
    python3
  ];

  # Tests that need a Docker Engine are marked as ignored; the NixOS tests have one. Those
  # that need more than the sandbox has are in modules with this word in their names.
  checkFlags = [ "--skip=needs_" ];

  postInstall =
    lib.optionalString (stdenv.hostPlatform.emulatorAvailable buildPackages) (
      let
        program = "${stdenv.hostPlatform.emulator buildPackages} $out/bin/docker-stack-backup";
      in
      ''
        ${program} man-pages man
        installManPage man/*
        installShellCompletion --cmd docker-stack-backup \
          --bash <(${program} completions bash) \
          --fish <(${program} completions fish) \
          --zsh <(${program} completions zsh)
      ''
    )
    # A suffix: the docker of the system, made for its Engine, comes first.
    + ''
      wrapProgram $out/bin/docker-stack-backup \
        --suffix PATH : ${lib.makeBinPath [ docker-client ]}
    '';

  nativeInstallCheckInputs = [ versionCheckHook ];
  doInstallCheck = true;

  passthru = {
    tests = nixosTests.docker-stack-backup;
    updateScript = nix-update-script { };
  };

  meta = {
    description = "Backs up Docker Compose stacks, one after another: stop, archive, start";
    homepage = "https://github.com/OWNER/docker-stack-backup";
    changelog = "https://github.com/OWNER/docker-stack-backup/blob/v${finalAttrs.version}/CHANGELOG.md";
    license = lib.licenses.mit;
    maintainers = with lib.maintainers; [ OWNER ];
    mainProgram = "docker-stack-backup";
    platforms = lib.platforms.linux;
  };
})
