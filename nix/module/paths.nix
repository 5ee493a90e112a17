# How paths are compared, and written into units.
{ lib }:
let
  # `%` begins a specifier of systemd.
  withoutSpecifiers = lib.replaceStrings [ "%" ] [ "%%" ];
in
{
  inherit withoutSpecifiers;

  # Without repeated and trailing slashes and `.`, so that paths can be compared.
  normalize =
    path:
    "/"
    + lib.concatStringsSep "/" (
      lib.filter (part: part != "" && part != ".") (lib.splitString "/" (toString path))
    );

  isBelow = dir: path: path == dir || dir == "/" || lib.hasPrefix "${dir}/" path;

  # One word of a setting that takes several. Only what needs quotes gets them.
  word =
    text:
    let
      doubled = withoutSpecifiers text;
    in
    if builtins.match "[[:alnum:]%_./:@+,=-]+" text != null then doubled else builtins.toJSON doubled;
}
