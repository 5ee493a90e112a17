# Everything that is rendered into the repository, for `write.py`.
{ nixpkgs }:
let
  render = import ./. { inherit nixpkgs; };
  inherit (render) lib;

  scenarioDir = ../../tests/vm;
  found = builtins.readDir scenarioDir;
  scenarios = lib.filter (name: found ? "${name}.py") (
    map (lib.removeSuffix ".nix") (lib.filter (lib.hasSuffix ".nix") (lib.attrNames found))
  );
in
{
  scenarios = lib.genAttrs scenarios (name: render.files (scenarioDir + "/${name}.nix"));
  options = map (option: {
    inherit (option) name type description;
    default = option.default.text or null;
    example = option.example.text or null;
  }) render.options;
}
