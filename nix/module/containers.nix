# What `containers`, `arion`, `compose2nix` and `quadlet` add to a stack: the units that
# run its containers, what these mount, and their Engine. All of it is read from the
# configuration of other modules, and none of them need be there.
{
  lib,
  # `config.virtualisation`.
  virtualisation,
  # `config.systemd.services`.
  services,
  # `config.users.users`.
  users,
  # `services.docker-stack-backup.docker`.
  docker,
}:
let
  paths = import ./paths.nix { inherit lib; };
  podmanSocket = "unix:///run/podman/podman.sock";

  # The system makes what is there, or a container must not write to it.
  ofSystem = [
    "/dev"
    "/nix/store"
    "/proc"
    "/run"
    "/sys"
    "/var/run"
  ];

  # An Engine, by the socket that names it, and where it has its volumes.
  ofDocker = {
    socket = docker.host;
    volumesDir = "${docker.dataRoot}/volumes";
  };
  ofPodman = {
    socket = podmanSocket;
    volumesDir = "/var/lib/containers/storage/volumes";
  };
  # `uid` is part of the socket's path.
  ofUser =
    user:
    if user.uid or null == null then
      throw "services.docker-stack-backup: a user who runs containers needs `uid` and `home` in users.users, because the path of the user's Podman has them"
    else
      {
        socket = "unix:///run/user/${toString user.uid}/podman/podman.sock";
        volumesDir = "${user.home}/.local/share/containers/storage/volumes";
      };
  engineOf = backend: if backend == "docker" then ofDocker else ofPodman;

  # `SOURCE:DESTINATION[:OPTIONS]`, or Compose's long form.
  parse =
    volume:
    if lib.isAttrs volume then
      {
        source = toString (volume.source or "");
        isReadOnly = volume.read_only or false;
      }
    else
      let
        parts = lib.splitString ":" volume;
      in
      {
        source = if lib.length parts < 2 then "" else lib.head parts;
        isReadOnly = lib.elem "ro" (
          lib.splitString "," (if lib.length parts > 2 then lib.elemAt parts 2 else "")
        );
      };

  suggest =
    name: known:
    let
      near = lib.filter (lib.strings.levenshteinAtMost 2 name) known;
    in
    if near != [ ] then
      "Did you mean ${lib.concatStringsSep " or " near}?"
    else if known == [ ] then
      "It is empty."
    else
      "It has: ${lib.concatStringsSep ", " known}.";

  # The names that are not in `known`, each as a problem.
  unknown =
    option: place: known: names:
    map (name: "${option}: ${place} has no ${name}. ${suggest name (lib.attrNames known)}") (
      lib.filter (name: !(known ? ${name})) names
    );

  # Each source takes a stack, and returns `problems` and `found`: units, each with its
  # Engine, its `volumes`, and `nameOf`, which gives a volume the name that the Engine
  # knows it by, or `null` if it is another one than a directory of that Engine.

  ociContainers = virtualisation.oci-containers or { };
  ociKnown = ociContainers.containers or { };
  ociBackend = ociContainers.backend or "podman";
  ociUnit = name: ociKnown.${name}.serviceName or "${ociBackend}-${name}";
  ociFound =
    name:
    let
      user = ociKnown.${name}.podman.user or "root";
    in
    {
      unit = ociUnit name;
      engine =
        if ociBackend == "podman" && user != "root" then
          ofUser (users.${user} or { })
        else
          engineOf ociBackend;
      volumes = ociKnown.${name}.volumes or [ ];
      nameOf = volume: volume;
    };
  ofOciContainers =
    stack:
    let
      place = "virtualisation.oci-containers.containers";
    in
    {
      problems = unknown "containers" place ociKnown stack.containers;
      found = map ociFound (lib.filter (name: ociKnown ? ${name}) stack.containers);
    };

  # compose2nix ties the unit of each container to the target of its project, and that of
  # a container that is not started at boot only to its networks and volumes.
  rootOf = project: "${ociBackend}-compose-${project}-root.target";
  rootsOf =
    name:
    lib.filter (unit: builtins.match ".*-compose-.*-root[.]target" unit != null) (
      services.${ociUnit name}.partOf or [ ]
    );
  isOfProject =
    project: name:
    let
      roots = rootsOf name;
      isOfPart =
        unit:
        lib.hasPrefix "${ociBackend}-network-${project}_" unit
        || lib.hasPrefix "${ociBackend}-volume-${project}_" unit;
    in
    if roots != [ ] then
      lib.elem (rootOf project) roots
    else
      lib.any isOfPart (services.${ociUnit name}.requires or [ ]);
  ofCompose2nix =
    stack:
    let
      project = stack.compose2nix;
      containers = lib.filter (isOfProject project) (lib.attrNames ociKnown);
      projectOf = root: lib.removeSuffix "-root.target" (lib.removePrefix "${ociBackend}-compose-" root);
      known = lib.unique (map projectOf (lib.concatMap rootsOf (lib.attrNames ociKnown)));
    in
    if project == null then
      {
        problems = [ ];
        found = [ ];
      }
    else
      {
        problems = lib.optional (containers == [ ]) (
          "compose2nix: no container of virtualisation.oci-containers.containers has a unit that is "
          + "part of ${rootOf project}. ${suggest project known}"
        );
        found = map ociFound containers;
      };

  arion = virtualisation.arion or { };
  ofArion =
    stack:
    let
      known = arion.projects or { };
      names = lib.optional (stack.arion != null) stack.arion;
      find =
        name:
        let
          project = known.${name};
          inherit (project) settings;
          declared = settings.docker-compose.volumes or { };
        in
        {
          unit = project.serviceName or "arion-${name}";
          engine = engineOf (arion.backend or "docker");
          volumes = lib.concatMap (service: service.service.volumes or [ ]) (
            lib.attrValues (settings.services or { })
          );
          nameOf =
            volume:
            let
              options = if declared.${volume} or null == null then { } else declared.${volume};
              isElsewhere =
                options.external or false != false
                || options.driver or "local" != "local"
                || options.driver_opts or { } != { };
            in
            if isElsewhere then null else options.name or "${settings.project.name or name}_${volume}";
        };
    in
    {
      problems = unknown "arion" "virtualisation.arion.projects" known names;
      found = map find (lib.filter (name: known ? ${name}) names);
    };

  quadlet = virtualisation.quadlet or { };
  ofQuadlet =
    stack:
    let
      known = quadlet.containers or { };
      # The name of the object is that of the Engine, unless the object has another one.
      nameOf =
        volume:
        let
          object = lib.removeSuffix ".volume" volume;
          options = (quadlet.volumes or { }).${object}.volumeConfig or { };
          named = options.name or null;
          isElsewhere = options.device or null != null || options.driver or null != null;
        in
        if !lib.hasSuffix ".volume" volume then
          volume
        else if isElsewhere then
          null
        else if named != null then
          named
        else
          object;
      find =
        name:
        let
          container = known.${name};
          uid = container.rootlessConfig.uid or null;
          ofUid = lib.filter (user: user.uid or null == uid) (lib.attrValues users) ++ [ { } ];
        in
        {
          unit = name;
          engine = if uid == null then ofPodman else ofUser (lib.head ofUid);
          volumes = container.containerConfig.volumes or [ ];
          inherit nameOf;
        };
    in
    {
      problems = unknown "quadlet" "virtualisation.quadlet.containers" known stack.quadlet;
      found = map find (lib.filter (name: known ? ${name}) stack.quadlet);
    };

  sources = [
    ofOciContainers
    ofCompose2nix
    ofArion
    ofQuadlet
  ];
in
# `defaultEngine` is the Engine of stacks that name none.
defaultEngine: stack:
let
  results = map (source: source stack) sources;
  found = lib.concatMap (result: result.found) results;
  engines = lib.unique (map (container: container.engine.socket) found);

  pathsOf =
    container: volume:
    let
      inherit (parse volume) source isReadOnly;
      path = paths.normalize source;
      isIgnored = lib.any (dir: paths.isBelow dir path) (
        ofSystem ++ lib.filter (lib.hasPrefix "/") stack.ignoreBinds
      );
      name = container.nameOf source;
      isExcluded = lib.any (volume: lib.elem volume stack.excludeVolumes);
    in
    if lib.hasPrefix "/" source then
      lib.optional (!(isIgnored || isReadOnly || isExcluded [ source ])) path
    # A path that begins with `.`, `~` or `%` is known on the machine alone.
    else if builtins.match "[[:alnum:]].*" source == null || name == null then
      [ ]
    else
      lib.optional (
        !isExcluded [
          source
          name
        ]
      ) "${container.engine.volumesDir}/${name}/_data";
in
{
  problems =
    lib.concatMap (result: result.problems) results
    ++
      lib.optional (lib.length engines > 1 && stack.engine == null)
        "its containers are on several Engines. Make a stack of each, or name the `engine` that the program asks.";
  units = lib.unique (stack.units ++ map (container: "${container.unit}.service") found);
  paths = lib.unique (
    stack.paths ++ lib.concatMap (container: lib.concatMap (pathsOf container) container.volumes) found
  );
  runsContainers = found != [ ];
  engine =
    if stack.engine != null || engines == [ ] then
      stack.engine
    else if lib.head engines == null && defaultEngine != null then
      "unix:///var/run/docker.sock"
    else
      lib.head engines;
}
