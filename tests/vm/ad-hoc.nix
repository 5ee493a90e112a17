# Nothing but the program and a Docker Engine.
{ config, ... }:
let
  cfg = config.services.docker-stack-backup;
in
{
  services.docker-stack-backup.enable = false;
  environment.systemPackages = [ cfg.package ];
}
