# The machine of all scenarios on NixOS: an Engine, its images, a mail server, and
# what the scripts bring with them. On Debian, tests/vm/debian is the same.
{ lib, pkgs, ... }:
let
  # The file is a link, which would not go into the store as what it leads to.
  postgresServer = pkgs.writeTextDir "postgres-server" (builtins.readFile ./postgres-server);
  postgresFiles = pkgs.runCommandLocal "postgres-files" { } ''
    install -D ${postgresServer}/postgres-server $out/bin/postgres-server
    mkdir -p $out/usr/local
    ln -s ${pkgs.postgresql}/bin $out/usr/local/pgsql
  '';

  image =
    name: contents:
    pkgs.dockerTools.buildImage {
      name = "docker-stack-backup/${name}";
      tag = "1";
      copyToRoot = pkgs.buildEnv {
        name = "${name}-root";
        paths = contents;
        pathsToLink = [
          "/bin"
          "/etc"
          "/usr"
        ];
      };
      extraCommands = ''
        mkdir -p tmp run var/lib/postgresql
        chmod 1777 tmp
      '';
      config.Env = [ "PATH=/bin" ];
    };

  users = pkgs.dockerTools.fakeNss.override {
    extraPasswdLines = [ "postgres:x:70:70::/var/lib/postgresql:/bin/sh" ];
    extraGroupLines = [ "postgres:x:70:" ];
  };

  images = pkgs.linkFarm "images" {
    "debian.tar.gz" = image "debian" [
      postgresFiles
      pkgs.bash
      pkgs.coreutils
      pkgs.postgresql
      pkgs.util-linux
      users
    ];
    "busybox.tar.gz" = image "busybox" [
      pkgs.busybox
      users
    ];
  };
in
{
  virtualisation = {
    docker.enable = true;
    podman.enable = true;
    memorySize = 2048;
    diskSize = 8192;
  };

  environment.systemPackages = [
    pkgs.borgbackup
    pkgs.openssl
    pkgs.e2fsprogs
    pkgs.postgresql
  ];
  environment.etc."dsb-test".source = pkgs.symlinkJoin {
    name = "dsb-test";
    paths = [
      ./fixtures
      (pkgs.linkFarm "with-images" { inherit images; })
    ];
  };

  users.users.admin.isNormalUser = true;
  services.opensmtpd = {
    enable = true;
    serverConfiguration = builtins.readFile ./fixtures/smtpd.conf;
  };
  # `prepare` starts it, when its certificate is there.
  systemd.services.opensmtpd.wantedBy = lib.mkForce [ ];
}
