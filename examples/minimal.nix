{
  virtualisation.docker.enable = true;
  services.docker-stack-backup = {
    enable = true;
    stacks = [
      "db"
      "web"
    ];
  };
}
