# Configurations that must not evaluate.
{
  no-stacks.stacks = [ ];
  twice.stacks = [
    "web"
    "web"
  ];
  same-path.stacks = {
    a.path = "/srv/x";
    b.path = "/srv/x";
  };
  store-in-stack = {
    stacks.web.path = "/srv/web";
    backupDir = "/srv/web/backup";
  };
  store-in-bind = {
    stacks.web.includeBinds = [ "/mnt" ];
    backupDir = "/mnt/backup";
  };
  store-in-stack-by-another-name = {
    stacks.web.path = "/srv//web/";
    backupDir = "/srv/./web";
  };
  unknown-container.stacks.web.containers = [ "no-such" ];
  unknown-arion-project.stacks.web.arion = "no-such";
  unknown-compose2nix-project.stacks.web.compose2nix = "no-such";
  unknown-quadlet.stacks.web.quadlet = [ "no-such" ];
  units-without-paths.stacks.db.units = [ "db.service" ];
  units-and-path.stacks.db = {
    units = [ "db.service" ];
    paths = [ "/var/lib/db" ];
    path = "/srv/db";
  };
  store-in-path-of-units = {
    stacks.db = {
      units = [ "db.service" ];
      paths = [ "/srv" ];
    };
    backupDir = "/srv/backup";
  };
  unit-in-two-jobs = {
    stacks.db = {
      units = [ "db.service" ];
      paths = [ "/var/lib/db" ];
    };
    jobs.other.stacks.data = {
      units = [ "db.service" ];
      paths = [ "/srv/data" ];
    };
  };
  engine-elsewhere = {
    stacks = [ "web" ];
    docker.host = "tcp://10.0.0.1:2375";
  };
  no-recipient = {
    stacks = [ "web" ];
    email = {
      host = "h";
      from = "a@b";
      to = [ ];
    };
  };
  secret-in-store = {
    stacks = [ "web" ];
    email = {
      host = "h";
      user = "u";
      passwordFile = "/nix/store/00000000000000000000000000000000-password";
      from = "a@b";
      to = [ "c@d" ];
    };
  };
  user-without-password = {
    stacks = [ "web" ];
    email = {
      host = "h";
      user = "u";
      from = "a@b";
      to = [ "c@d" ];
    };
  };
  unknown-option = {
    stacks = [ "web" ];
    keepDays = 7;
  };
  unknown-stack-option.stacks.web.stop_timeout = 7;
  wrong-type = {
    stacks = [ "web" ];
    retention.keepDays = "7";
  };
  relative-path = {
    stacks = [ "web" ];
    baseDir = "stacks";
  };
  path-with-dots.stacks.web.path = "/srv/../etc";
  no-stacks-in-job = {
    stacks = [ "web" ];
    jobs.other.stacks = [ ];
  };
  name-of-job = {
    stacks = [ "web" ];
    jobs."a b".stacks = [ "db" ];
  };
  stack-in-two-jobs = {
    stacks = [ "web" ];
    jobs.other.stacks = [ "web" ];
  };
  directory-in-two-jobs = {
    stacks = [ "web" ];
    jobs.other.stacks.site.path = "/opt/stacks/./web";
  };
  state-of-two-jobs = {
    stacks = [ "web" ];
    stateDir = "/var/lib/x";
    jobs.other = {
      stacks = [ "db" ];
      stateDir = "/var/lib//x/";
    };
  };
  store-of-two-jobs = {
    stacks = [ "web" ];
    jobs.other = {
      stacks = [ "db" ];
      backupDir = "/var/backups/docker";
    };
  };
  store-in-store = {
    stacks = [ "web" ];
    jobs.other = {
      stacks = [ "db" ];
      backupDir = "/var/backups/docker/other";
    };
  };
  store-in-stack-of-other-job = {
    stacks = [ "web" ];
    jobs.other = {
      stacks = [ "db" ];
      backupDir = "/opt/stacks/web/backup";
    };
  };
  twice-in-job = {
    stacks = [ "web" ];
    jobs.other.stacks = [
      "db"
      "db"
    ];
  };
  all-beside-another-job = {
    stacks = "all";
    jobs.other.stacks = [ "web" ];
  };
  another-word.stacks = "some";
}
