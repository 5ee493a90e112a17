# Nothing but the machine: the script is about the test driver itself.
{
  services.docker-stack-backup.enable = false;
}
