# Beside the simple form, a job whose paths systemd would misread without quotes, and
# whose stack has its compose file in the Nix store.
{ pkgs, ... }:
{
  imports = [ ./common.nix ];
  environment.etc."dsb-linked/compose.yaml".source = pkgs.writeText "compose.yaml" (
    builtins.readFile ./fixtures/stacks/web/compose.yaml
  );
  services.docker-stack-backup = {
    stacks = [ "db" ];
    jobs.media = {
      stacks.linked.path = "/srv/100% of it/linked stack";
      backupDir = "/srv/a store/100%";
      stateDir = "/srv/a state/%n";
      schedule = "Sun 05:00";
      # The longer a stack is down, the easier it is killed then.
      defaults.capture = "offline";
      drill.enable = true;
    };
  };
}
