# shellcheck shell=bash
# Nix for evaluating and checking, without a daemon and without installing it:
# from PATH, else unpacked from Debian. Sourced after lib.sh.

NIX_SUITE=trixie
NIX_ROOT=$DSB_CACHE/nix-root

# run_nix COMMAND ARGUMENT...
run_nix() {
  if command -v "$1" >/dev/null; then
    "$@"
    return
  fi
  local root=$NIX_ROOT loader
  loader=$(find "$root/usr/lib64" "$root/usr/lib" -maxdepth 2 -name "ld-linux*.so.*" 2>/dev/null | head -n 1)
  # The program finds itself by argv[0]: `nix-instantiate` is a link to `nix`.
  NIX_STATE_DIR=$DSB_CACHE/nix-state NIX_STORE_DIR=/nix/store NIX_LOG_DIR=$DSB_CACHE/nix-log \
    NIX_CONF_DIR=/nonexistent NIX_DATA_DIR=$root/usr/share \
    "$loader" --argv0 "$1" --library-path "$(ls -d "$root"/usr/lib/*-linux-gnu)" \
    "$root/usr/bin/nix" "${@:2}"
}

ensure_nix() {
  command -v nix-instantiate >/dev/null && return
  [ ! -e "$NIX_ROOT/usr/bin/nix" ] || return 0
  need_packages mmdebstrap
  apt_update
  note "unpacking Nix from Debian $NIX_SUITE (once)"
  rm -rf "$NIX_ROOT.new"
  mkdir -p "$DSB_CACHE"
  local source
  source=$(debian_source "$NIX_SUITE") || die "no source for Debian $NIX_SUITE"
  mmdebstrap --quiet --variant=extract --include=nix-bin,libc6 "$NIX_SUITE" "$NIX_ROOT.new" "$source" \
    >"$DSB_CACHE/nix.log" 2>&1 || {
    tail -n 20 "$DSB_CACHE/nix.log" >&2
    die "mmdebstrap did not succeed; see above"
  }
  mv "$NIX_ROOT.new" "$NIX_ROOT"
}
