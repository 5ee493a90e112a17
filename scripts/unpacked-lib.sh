# shellcheck shell=bash
# Programs of a newer Debian, unpacked beside the machine's own and run with
# their own loader and libraries: nothing is installed, so nothing can be held
# back or displaced by what is. Sourced after lib.sh.

UNPACKED_SUITE=trixie

# ensure_unpacked NAME PACKAGE...: into $DSB_CACHE/NAME, once.
ensure_unpacked() {
  local name=$1 root=$DSB_CACHE/$1 packages source
  shift
  packages=$(IFS=,; echo "$*")
  [ "$(cat "$root/packages" 2>/dev/null)" != "$packages" ] || return 0
  need_packages mmdebstrap
  apt_update
  note "unpacking $* of Debian $UNPACKED_SUITE (once)"
  source=$(debian_source "$UNPACKED_SUITE") || die "no source for Debian $UNPACKED_SUITE"
  rm -rf "$root" "$root.new"
  mkdir -p "$DSB_CACHE"
  mmdebstrap --quiet --variant=extract --include="$packages" --aptopt='APT::Install-Recommends "false"' \
    "$UNPACKED_SUITE" "$root.new" "$source" >"$root.log" 2>&1 || {
    tail -n 20 "$root.log" >&2
    die "mmdebstrap did not succeed; see above"
  }
  echo "$packages" >"$root.new/packages"
  mv "$root.new" "$root"
}

# unpacked_argv NAME PROGRAM [ARGV0]: prints what runs it, a word a line.
unpacked_argv() {
  local root=$DSB_CACHE/$1 loader
  loader=$(find "$root/usr/lib64" "$root/usr/lib" -maxdepth 2 -name 'ld-linux*.so.*' 2>/dev/null | head -n 1)
  printf '%s\n' "$loader" --argv0 "${3:-$2}" \
    --library-path "$(ls -d "$root"/usr/lib/*-linux-gnu)" "$root/usr/bin/$2"
}

# ---- Nix --------------------------------------------------------------------

ensure_nix() {
  command -v nix-instantiate >/dev/null || ensure_unpacked nix nix-bin libc6
}

# run_nix nix-instantiate ARGUMENT...: the one on PATH if there is one.
run_nix() {
  if command -v "$1" >/dev/null; then
    "$@"
    return
  fi
  local argv
  # All are links to one program, which looks at its name.
  mapfile -t argv < <(unpacked_argv nix nix "$1")
  NIX_STATE_DIR=$DSB_CACHE/nix-state NIX_LOG_DIR=$DSB_CACHE/nix-state/log \
    NIX_STORE_DIR=/nix/store NIX_CONF_DIR=/nonexistent "${argv[@]}" "${@:2}"
}
