# Everything that is rendered into the repository, for `write.py`. `examples`:
# a directory with the modules that the documentation shows.
{ nixpkgs, examples }:
let
  render = import ./. { inherit nixpkgs; };
  inherit (render) lib;

  # The machine of each scenario, without what NixOS alone has (nixos.nix).
  scenarios = import ../../tests/vm {
    inherit lib;
    runTest = test: lib.last (test { hostPkgs = { }; }).nodes.machine.imports;
  };

  evaluates =
    settings:
    builtins.tryEval (
      builtins.deepSeq (render.files {
        services.docker-stack-backup = {
          enable = true;
        }
        // settings;
      }) true
    );
in
{
  scenarios = lib.mapAttrs (_: render.files) scenarios;
  allOptions = render.files ./all-options.nix;
  # Only evaluated: each adds to the first configuration of the documentation.
  examples = lib.mapAttrs (
    name: _:
    render.files {
      imports = [ (examples + "/${name}") ];
      services.docker-stack-backup = {
        enable = true;
        stacks = lib.mkDefault [ "web" ];
      };
    }
  ) (builtins.readDir examples);
  # Lists of stacks of several modules are joined in their order.
  joined =
    let
      stacksOf = value: { services.docker-stack-backup.stacks = value; };
      config = render.evaluate {
        imports = map stacksOf [
          [
            "c"
            "d"
          ]
          (lib.mkAfter [ "e" ])
          (lib.mkBefore [
            "b"
            "a"
          ])
          { d.exclude = [ "x" ]; }
        ];
        services.docker-stack-backup.enable = true;
      };
      inherit (config.environment.etc."docker-stack-backup/config.json".source) json;
      names = map (stack: stack.name) json.stacks;
    in
    assert
      names == [
        "b"
        "a"
        "c"
        "d"
        "e"
      ];
    names;
  # What must be refused, and, as the controls, what must not.
  refused = lib.mapAttrs (_: evaluates) (import ./refused.nix);
  accepted = lib.mapAttrs (_: evaluates) (import ./accepted.nix);
  options = map (option: {
    inherit (option) name type description;
    default = option.default or null;
    example = option.example or null;
  }) render.options;
}
