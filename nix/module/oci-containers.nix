# What a stack's `containers` add to it: units and paths, by what
# `virtualisation.oci-containers` has of them.
{ lib }:
let
  # The system makes what is there, or a container must not write to it.
  ofSystem = [
    "/dev"
    "/nix/store"
    "/proc"
    "/run"
    "/sys"
    "/var/run"
  ];
  paths = import ./paths.nix { inherit lib; };
in
ociContainers: docker: stack:
let
  known = ociContainers.containers or { };
  backend = ociContainers.backend or "podman";
  unknownContainers = lib.filter (name: !(known ? ${name})) stack.containers;
  containers = lib.filter (name: known ? ${name}) stack.containers;

  unitOf = name: (known.${name}.serviceName or "${backend}-${name}") + ".service";

  volumesDir =
    if backend == "docker" then "${docker.dataRoot}/volumes" else "/var/lib/containers/storage/volumes";
  # `SOURCE:DESTINATION[:OPTIONS]`. A source without a slash is a volume.
  pathsOf =
    volume:
    let
      parts = lib.splitString ":" volume;
      source = lib.head parts;
      options = lib.splitString "," (if lib.length parts > 2 then lib.elemAt parts 2 else "");
      isAbsolute = lib.hasPrefix "/" source;
      path = paths.normalize source;
      isIgnored = lib.any (dir: paths.isBelow dir path) (
        ofSystem ++ lib.filter (lib.hasPrefix "/") stack.ignoreBinds
      );
    in
    if lib.length parts < 2 || lib.elem source stack.excludeVolumes then
      [ ]
    else if isAbsolute then
      lib.optional (!(isIgnored || lib.elem "ro" options)) path
    else
      [ "${volumesDir}/${source}/_data" ];
in
{
  inherit unknownContainers;
  units = lib.unique (stack.units ++ map unitOf containers);
  paths = lib.unique (
    stack.paths ++ lib.concatMap (name: lib.concatMap pathsOf (known.${name}.volumes or [ ])) containers
  );
}
