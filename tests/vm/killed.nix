{
  imports = [ ./common.nix ];
  services.docker-stack-backup = {
    stacks.web.hooks = [
      {
        when = "beforeCopy";
        host = true;
        user = "nobody";
        command = [
          "touch"
          "/srv/stacks/web/hooked/flag"
        ];
        undo = [
          "rm"
          "-f"
          "/srv/stacks/web/hooked/flag"
        ];
      }
      {
        when = "beforeStop";
        service = "web";
        user = "1000";
        command = [
          "touch"
          "/tmp/flag"
        ];
        undo = [
          "rm"
          "-f"
          "/tmp/flag"
        ];
      }
      # What the sandbox forbids to root, too.
      {
        when = "beforeCopy";
        host = true;
        command = [
          "touch"
          "/etc/flag"
        ];
        onError = "warn";
      }
    ];
    inhibitsSleep = true;
    # The longer a stack is down, the easier it is killed then.
    defaults.capture = "offline";
  };
}
