# Stacks of units that run containers, as the common modules make them, and a native
# database. Their containers end at once when they are stopped.
{ pkgs, ... }:
let
  docker = "${pkgs.docker}/bin/docker";
  podman = "${pkgs.podman}/bin/podman";
  bash = "${pkgs.bash}/bin/bash";
  postgres = "${pkgs.postgresql}/bin/postgres";
  image = "docker-stack-backup/busybox:1";
  ofPodman = "docker.io/${image}";
  volumesOfPodman = "/var/lib/containers/storage/volumes";

  # It is healthy two seconds after its start.
  becomesHealthy = "sh -c 'sleep 2; touch /tmp/ready; exec sleep infinity'";
  mediaCompose = pkgs.writeText "media.yaml" ''
    name: media
    services:
      player:
        image: ${image}
        command: sleep infinity
        stop_signal: SIGKILL
        network_mode: none
        volumes: [library:/library]
    volumes:
      library: {}
  '';
  quadlet = pkgs.writeText "notes.container" ''
    [Container]
    Image=${ofPodman}
    Pull=never
    ContainerName=notes
    Network=none
    PodmanArgs=--pids-limit=0 --stop-signal=SIGKILL
    Volume=notes-data:/data
    Exec=sleep infinity

    [Service]
    Restart=always

    [Install]
    WantedBy=multi-user.target
  '';

  # As those of virtualisation.oci-containers are.
  podmanUnit = runtimeDirectory: arguments: {
    wantedBy = [ "multi-user.target" ];
    serviceConfig = {
      Type = "notify";
      NotifyAccess = "all";
      Environment = "PODMAN_SYSTEMD_UNIT=%n";
      ExecStart = "${podman} run --cidfile=${runtimeDirectory}/ctr-id --cgroups=enabled --sdnotify=conmon -d --replace --rm --network=none --pids-limit=0 --pull=never --stop-signal=SIGKILL ${arguments}";
      ExecStop = "${podman} stop --ignore --cidfile=${runtimeDirectory}/ctr-id";
      ExecStopPost = "${podman} rm --force --ignore --cidfile=${runtimeDirectory}/ctr-id";
      Restart = "always";
      TimeoutStartSec = 0;
      TimeoutStopSec = 120;
    };
  };
  # As compose2nix makes them.
  root = "docker-compose-shop-root.target";
  ofShop = {
    partOf = [ root ];
    wantedBy = [ root ];
    requires = [ "docker.service" ];
    after = [ "docker.service" ];
  };
  oneshot = start: stop: {
    Type = "oneshot";
    RemainAfterExit = true;
    ExecStart = "${bash} -c '${start}'";
    ExecStop = stop;
  };
in
{
  imports = [ ./common.nix ];
  services.docker-stack-backup.stacks = {
    database = {
      units = [ "database.service" ];
      paths = [ "/var/lib/database" ];
    };
    diary = {
      units = [ "podman-diary.service" ];
      paths = [ "/home/admin/.local/share/containers/storage/volumes/diary/_data" ];
      engine = "unix:///run/user/1000/podman/podman.sock";
    };
    media = {
      units = [ "arion-media.service" ];
      paths = [ "/var/lib/docker/volumes/media_library/_data" ];
    };
    notes = {
      units = [ "notes.service" ];
      paths = [ "${volumesOfPodman}/notes-data/_data" ];
    };
    shop = {
      units = [ "docker-shop-web.service" ];
      paths = [ "/var/lib/docker/volumes/shop_data/_data" ];
    };
    # A unit starts it, and does not notice what happens to its containers.
    web = { };
    wiki = {
      units = [ "podman-wiki.service" ];
      paths = [ "${volumesOfPodman}/wiki-data/_data" ];
    };
  };

  environment.etc = {
    "containers/systemd/notes.container".source = quadlet;
    "dsb-media.yaml".source = mediaCompose;
  };
  users.users.admin = {
    uid = 1000;
    home = "/home/admin";
    linger = true;
  };
  systemd.targets.docker-compose-shop-root.wantedBy = [ "multi-user.target" ];
  systemd.services = {
    database = {
      wantedBy = [ "multi-user.target" ];
      unitConfig.ConditionPathExists = "/var/lib/database/PG_VERSION";
      serviceConfig = {
        Type = "notify";
        User = "admin";
        RuntimeDirectory = "database";
        ExecStart = "${postgres} -D /var/lib/database -k /run/database -h ''";
        Restart = "always";
      };
    };
    podman-wiki =
      let
        unit = podmanUnit "/run/podman-wiki" (
          "--name=wiki --volume=wiki-data:/data --health-interval=1h "
          + "--health-cmd='test -e /tmp/ready' ${ofPodman} ${becomesHealthy}"
        );
      in
      unit
      // {
        serviceConfig = unit.serviceConfig // {
          RuntimeDirectory = "podman-wiki";
        };
      };
    podman-diary =
      let
        unit = podmanUnit "/run/user/1000" "--name=diary --volume=diary:/data ${ofPodman} sleep infinity";
      in
      unit
      // {
        requires = [ "user@1000.service" ];
        after = [ "user@1000.service" ];
        # For newuidmap of NixOS.
        path = [ "/run/wrappers" ];
        environment = {
          XDG_RUNTIME_DIR = "/run/user/1000";
          HOME = "/home/admin";
        };
        serviceConfig = unit.serviceConfig // {
          User = "admin";
          Delegate = true;
        };
      };
    # In the foreground, without ExecStop= and without Restart=.
    arion-media = {
      wantedBy = [ "multi-user.target" ];
      after = [ "docker.service" ];
      environment.HOME = "/root";
      serviceConfig.ExecStart = "${docker} compose -f ${mediaCompose} up";
    };
    compose-web = {
      wantedBy = [ "multi-user.target" ];
      after = [ "docker.service" ];
      environment.HOME = "/root";
      unitConfig.ConditionPathExists = "/srv/stacks/web";
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${docker} compose --project-directory /srv/stacks/web up -d";
        ExecStop = "${docker} compose --project-directory /srv/stacks/web down";
      };
    };
    docker-network-shop_default = ofShop // {
      serviceConfig = oneshot "${docker} network inspect shop_default || ${docker} network create shop_default" "${docker} network rm -f shop_default";
    };
    # As with -remove_volumes.
    docker-volume-shop_data = ofShop // {
      serviceConfig = oneshot "${docker} volume create shop_data" "${docker} volume rm -f shop_data";
    };
    docker-shop-web =
      let
        parts = [
          "docker-network-shop_default.service"
          "docker-volume-shop_data.service"
        ];
      in
      ofShop
      // {
        requires = ofShop.requires ++ parts;
        after = ofShop.after ++ parts;
        serviceConfig = {
          ExecStartPre = "-${docker} rm --force shop-web";
          ExecStart = "${docker} run --name=shop-web --rm --log-driver=journald --stop-signal=SIGKILL --network=shop_default --volume=shop_data:/data ${image} sleep infinity";
          ExecStop = "-${docker} stop shop-web";
          ExecStopPost = "-${docker} rm --force shop-web";
          Restart = "always";
          TimeoutStartSec = 0;
          TimeoutStopSec = 120;
        };
      };
  };
}
