# Nothing but the program and a Docker Engine.
{
  services.docker-stack-backup.enable = false;
}
