# Configurations that must evaluate: the controls of refused.nix.
{
  one-stack.stacks = [ "web" ];
  jobs-only.jobs.other.stacks = [ "web" ];
  stack-in-a-job-that-is-off = {
    stacks = [ "web" ];
    jobs.other = {
      enable = false;
      stacks = [ "web" ];
    };
  };
  directory-of-two-projects-in-two-jobs = {
    stacks.web.project = "blue";
    jobs.other.stacks.site = {
      path = "/opt/stacks/web";
      project = "green";
    };
  };
  all-stacks = {
    stacks = "all";
    ignoreProjects = [ "test-*" ];
  };
  stores-beside-each-other = {
    stacks = [ "web" ];
    backupDir = "/mnt/backup/docker";
    jobs.other = {
      stacks = [ "db" ];
      backupDir = "/mnt/backup/docker-other";
    };
  };
  dots-in-a-name.stacks.web.path = "/srv/..web/a..b";
  units.stacks = {
    a = {
      units = [ "a.service" ];
      paths = [ "/var/lib/a" ];
    };
    b = {
      units = [ "b.service" ];
      paths = [ "/var/lib/b" ];
    };
  };
  engine-here = {
    stacks = [ "web" ];
    docker.host = "unix:///run/other.sock";
  };
}
