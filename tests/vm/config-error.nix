{
  lib,
  pkgs,
  ...
}:
let
  json = pkgs.formats.json { };
  # Each is refused by `check`, as it is when a system is built.
  broken = {
    bad-pattern.stacks = [
      {
        name = "web";
        exclude = [ "[z-a]" ];
      }
    ];
    duplicate-stack.stacks = [
      "web"
      "db"
      "web"
    ];
    keeps-nothing = {
      stacks = [ "web" ];
      retention.keepLast = 0;
    };
    unknown-option = {
      stacks = [ "web" ];
      retention.keepDay = 7;
    };
    store-in-stack = {
      stacks = [ "web" ];
      baseDir = "/srv";
      backupDir = "/srv/web/backups";
    };
    no-recipient = {
      stacks = [ "web" ];
      email = {
        host = "mail.example.org";
        from = "a@example.org";
        to = [ ];
      };
    };
  };
in
{
  imports = [ ./common.nix ];

  environment.etc = lib.mapAttrs' (name: config: {
    name = "dsb-test-configs/${name}.json";
    value.source = json.generate "${name}.json" config;
  }) broken;
}
