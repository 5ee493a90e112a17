# shellcheck shell=bash
# What scripts/demo and scripts/test share: packages, a Docker Engine, images.
# Sourced by them; sourcing it only defines functions and variables.
#
# Environment:
#   DSB_CACHE    images, and what else is made once
#                (/var/cache/docker-stack-backup-dev)
#   DSB_ENGINE   the private Engine's data ($DSB_CACHE/engine)
#   DSB_RUN      the private Engine's socket and pid file; short, because a
#                socket path may have 107 bytes (/run/docker-stack-backup-dev)
#   DOCKER_HOST  an Engine of your own; it is then used as it is

DSB_CACHE=${DSB_CACHE:-/var/cache/docker-stack-backup-dev}
DSB_ENGINE=${DSB_ENGINE:-$DSB_CACHE/engine}
DSB_RUN=${DSB_RUN:-/run/docker-stack-backup-dev}
# Daemons and mkfs live in sbin, which not every root shell has on its PATH.
PATH=$PATH:/usr/sbin:/sbin

# The compose files in demo/ and tests/stacks/ name these tags.
DEBIAN_IMAGE=docker-stack-backup/debian:1
BUSYBOX_IMAGE=docker-stack-backup/busybox:1
# The Engine is taken from this Debian release where the machine's own is older.
ENGINE_SUITE=trixie

ENGINE_SOCKET=$DSB_RUN/docker.sock
ENGINE_PIDFILE=$DSB_RUN/dockerd.pid
CONTAINERD_PIDFILE=$DSB_RUN/exec/containerd/containerd.pid
ENGINE_LOG=$DSB_CACHE/dockerd.log
ENGINE_START_SECONDS=60
# Set by ensure_engine: was the private Engine started by this very call?
ENGINE_STARTED=no

SCRIPTS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

heading() { printf '\n== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# ---- packages ---------------------------------------------------------------

has_systemd() { [ -d /run/systemd/system ]; }

is_installed() {
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

require_debian_root() {
  command -v apt-get >/dev/null ||
    die "this is not a Debian machine; install by hand: $*"
  [ "$(id -u)" = 0 ] || die "not root; run this as root, or install: $*"
}

# At most once a call of the script.
APT_UPDATED=no
apt_update() {
  [ "$APT_UPDATED" = no ] || return 0
  note "apt-get update"
  apt-get -qq update || die "apt-get update did not succeed; see above"
  APT_UPDATED=yes
}

# Runs its arguments with services kept from being started by package scripts.
# A policy-rc.d that is there already is somebody's decision and stays.
without_service_start() {
  local policy=/usr/sbin/policy-rc.d
  if [ -e "$policy" ] || [ -L "$policy" ]; then
    "$@"
    return
  fi
  # A subshell for its trap: left behind, the file would keep every service of
  # the machine from being started by later installations.
  (
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    "$@"
  )
}

# Never at the price of a package that is there: --no-remove.
apt_install() {
  local log=$DSB_CACHE/apt.log
  mkdir -p "$DSB_CACHE"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-remove --no-install-recommends \
    -o Dpkg::Options::=--force-confold "$@" >"$log" 2>&1 </dev/null ||
    {
      tail -n 20 "$log" >&2
      return 1
    }
}

# try_packages PKG...: installs those that are missing, and nothing else.
# Services they bring are not started; callers start what they need by hand.
try_packages() {
  local package missing=()
  for package in "$@"; do
    is_installed "$package" || missing+=("$package")
  done
  [ "${#missing[@]}" -gt 0 ] || return 0
  require_debian_root "${missing[@]}"
  apt_update
  note "apt-get install ${missing[*]}"
  without_service_start apt_install "${missing[@]}"
}

need_packages() {
  try_packages "$@" || die "apt-get install $* did not succeed; see above"
}

need_cargo() {
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null || die "no cargo on this machine; install Rust: https://rustup.rs"
  command -v cc >/dev/null || need_packages gcc libc6-dev
}

# The machine's own Debian archive, so that no mirror need be named here.
# apt itself reads the sources: one-line and deb822 files look the same to it.
debian_archive() {
  local site
  # shellcheck disable=SC2016 # $(SITE) is for apt-get.
  site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' \
    'Origin: Debian' 'Component: main' "Codename: $1" | head -n 1)
  [ -n "$site" ] || die "no apt source for Debian $1 on this machine"
  printf '%s\n' "$site"
}

debian_codename() (
  # shellcheck disable=SC1091
  . /etc/os-release
  printf '%s\n' "${VERSION_CODENAME:-}"
)

# debian_source SUITE: a line for sources.list.
debian_source() {
  local archive keyring=/usr/share/keyrings/debian-archive-keyring.gpg options=
  archive=$(debian_archive "$(debian_codename)") || return 1
  [ ! -e "$keyring" ] || options="[signed-by=$keyring] "
  printf 'deb %s%s %s main\n' "$options" "$archive" "$1"
}

# ---- Engine -----------------------------------------------------------------

engine_answers() { docker info >/dev/null 2>&1; }

# Is there a Compose that knows what the stacks use (2.20 or newer)?
compose_is_usable() {
  local version major minor
  version=$(docker compose version --short 2>/dev/null) || return 1
  IFS=. read -r major minor _ <<<"${version#v}"
  [ "$major" -gt 2 ] || { [ "$major" -eq 2 ] && [ "$minor" -ge 20 ]; }
}

# Compose in Debian before trixie is version 1. Pinned at 100, the newer
# release upgrades nothing that is installed; its packages must be asked for.
add_engine_suite() {
  local list=/etc/apt/sources.list.d/docker-stack-backup-$ENGINE_SUITE.list
  [ ! -e "$list" ] || return 0
  note "adding Debian $ENGINE_SUITE as an apt source at priority 100"
  printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n' "$ENGINE_SUITE" \
    >"/etc/apt/preferences.d/docker-stack-backup-$ENGINE_SUITE"
  debian_source "$ENGINE_SUITE" >"$list.new" || die "no source for Debian $ENGINE_SUITE"
  mv "$list.new" "$list"
  APT_UPDATED=no
}

apt_has_usable_compose() {
  local version
  version=$(apt-cache policy docker-compose | sed -n 's/^  Candidate: //p')
  dpkg --compare-versions "${version:-0}" ge 2.20
}

install_engine() {
  local package packages=(docker.io docker-cli docker-compose containerd iptables iproute2)
  require_debian_root "Docker Engine and Compose 2.20 or newer"
  apt_update
  if ! apt_has_usable_compose; then
    add_engine_suite
    apt_update
    for package in "${!packages[@]}"; do
      # The ip* tools as they are: nothing here needs newer ones.
      case ${packages[$package]} in
      ip*) ;;
      *) packages[package]+=/$ENGINE_SUITE ;;
      esac
    done
  fi
  note "apt-get install ${packages[*]}"
  if has_systemd; then
    apt_install "${packages[@]}"
  else
    without_service_start apt_install "${packages[@]}"
  fi || die "installing Docker Engine did not succeed; see above"
  hash -r
}

# is_process PIDFILE WORD: does the file name a live process whose command line
# has WORD? The number alone proves nothing: it may have gone to another.
is_process() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] &&
    grep -qsF -- "$2" "/proc/$pid/cmdline"
}

private_engine_runs() { is_process "$ENGINE_PIDFILE" "$ENGINE_PIDFILE"; }
private_containerd_runs() { is_process "$CONTAINERD_PIDFILE" "$DSB_RUN/exec"; }

# Is there any process of the private Engine? A dockerd that was killed leaves
# the containers, each with a shim that has our path on its command line.
# The pattern comes from stdin, lest grep find itself.
private_engine_is_left() {
  # shellcheck disable=SC2062 # The glob is the list of files.
  grep -qsF -f/dev/stdin /proc/[0-9]*/cmdline <<<"$DSB_RUN/exec"
}

# dockerd refuses to start, or waits in vain for its containerd, when a pid
# file of a killed one names a process that lives.
remove_stale_pidfiles() {
  private_engine_runs || rm -f "$ENGINE_PIDFILE"
  private_containerd_runs || rm -f "$CONTAINERD_PIDFILE"
}

# It runs in a network namespace of its own: bridges, forwarding and firewall of
# the machine stay as they are, and another Engine is not in the way. The stacks
# need no way out, and their ports are not reached from outside. containerd gets
# a namespace too, in case dockerd finds one of the system and uses that.
run_dockerd() {
  note "starting a private Docker Engine; its log is $ENGINE_LOG"
  # No descriptor of ours (the lock, a pipe to tee) may live on in the daemon.
  # Each start of a container starts seven short programs in Go, among them dockerd
  # itself. Collecting garbage seldom saves a third of the time that they take.
  # shellcheck disable=SC2016 # $@ is for the inner shell.
  GOGC=800 \
    setsid --fork unshare --net sh -c 'ip link set lo up && exec dockerd "$@"' sh \
    --data-root "$DSB_ENGINE" \
    --exec-root "$DSB_RUN/exec" \
    --pidfile "$ENGINE_PIDFILE" \
    --host "unix://$ENGINE_SOCKET" \
    --config-file "$DSB_RUN/daemon.json" \
    --containerd-namespace dsb-dev --containerd-plugins-namespace dsb-dev-plugins \
    --iptables=false --ip6tables=false \
    --shutdown-timeout 5 \
    </dev/null >>"$ENGINE_LOG" 2>&1 9>&-
}

start_private_engine() {
  mkdir -p "$DSB_RUN" "$DSB_CACHE"
  remove_stale_pidfiles
  if ! private_engine_runs; then
    # A file of our own: the machine's daemon.json is not for us. By default an
    # Engine has room for 31 networks, and tests that run at the same time need more.
    # Filters of system calls cost a tenth of the time that a container takes to start;
    # the machines of the lane vm have them.
    echo '{"default-address-pools": [{"base": "10.128.0.0/12", "size": 24}],
      "seccomp-profile": "unconfined"}' >"$DSB_RUN/daemon.json"
    : >"$ENGINE_LOG"
    run_dockerd
    # shellcheck disable=SC2034 # The callers read it.
    ENGINE_STARTED=yes
  fi
  wait_for_engine
}

wait_for_engine() {
  local deadline=$((SECONDS + ENGINE_START_SECONDS))
  until engine_answers; do
    if [ "$SECONDS" -ge "$deadline" ]; then
      printf 'the last lines of %s:\n' "$ENGINE_LOG" >&2
      tail -n 20 "$ENGINE_LOG" >&2
      die "the Docker Engine did not answer within $ENGINE_START_SECONDS s"
    fi
    sleep 0.2
  done
}

# Makes `docker info` and `docker compose` work, in this order of preference:
# the Engine that answers; a service that systemd starts; a private one.
# Sets DOCKER_HOST for the last, and ENGINE_STARTED=yes if it started it.
ensure_engine() {
  if [ "${DOCKER_HOST:-unix://$ENGINE_SOCKET}" != "unix://$ENGINE_SOCKET" ]; then
    engine_answers || die "DOCKER_HOST is $DOCKER_HOST, and no Engine answers there"
  fi
  if engine_answers; then
    compose_is_usable || die "Docker Compose 2.20 or newer is needed beside this Engine"
    note "using the Docker Engine that is running: ${DOCKER_HOST:-the default one}"
    return 0
  fi
  if ! compose_is_usable || ! command -v dockerd >/dev/null; then
    install_engine
    compose_is_usable ||
      die "$(command -v docker) finds no Docker Compose 2.20 or newer"
  fi
  if has_systemd && systemctl start docker && engine_answers; then
    note "using the Docker Engine that systemd runs"
    return 0
  fi
  [ "$(id -u)" = 0 ] || die "a private Docker Engine needs root"
  export DOCKER_HOST=unix://$ENGINE_SOCKET
  with_engine_lock start_private_engine
  note "DOCKER_HOST=$DOCKER_HOST"
}

# Two scripts at once must not start two daemons on one data root.
with_engine_lock() {
  mkdir -p "$DSB_RUN"
  exec 9>"$DSB_RUN/lock"
  flock 9
  local status=0
  "$@" || status=$?
  exec 9>&-
  return "$status"
}

# stop_engine: ends the private Engine with all its containers; any other is
# left alone. Safe to call when there is none.
stop_engine() {
  [ -d "$DSB_RUN" ] || return 0
  with_engine_lock stop_private_engine
}

stop_private_engine() {
  local pid deadline=$((SECONDS + 30))
  if ! private_engine_runs; then
    private_engine_is_left || return 0
    # The way to end what a killed dockerd left is a new one that finds it.
    DOCKER_HOST=unix://$ENGINE_SOCKET start_private_engine
  fi
  pid=$(cat "$ENGINE_PIDFILE")
  note "stopping the private Docker Engine"
  kill -TERM "$pid" 2>/dev/null || true
  while private_engine_is_left; do
    [ "$SECONDS" -lt "$deadline" ] ||
      die "the private Docker Engine (process $pid) does not stop"
    sleep 0.2
  done
  # dockerd mounts its data root on itself, and one that was killed leaves that.
  while mountpoint -q "$DSB_ENGINE"; do umount "$DSB_ENGINE" || break; done
}

# ---- Podman -----------------------------------------------------------------

# The tests in modules `needs_podman` find it here.
PODMAN_SOCKET=$DSB_RUN/podman/podman.sock
PODMAN_USER_SOCKET=$DSB_RUN/podman-user/podman.sock
PODMAN_DATA=$DSB_CACHE/podman-data
PODMAN_LOG=$DSB_CACHE/podman.log
PODMAN_START_SECONDS=20
# Set by ensure_podman: was a private Podman started by this very call?
PODMAN_STARTED=no

podman_answers() { docker --host "unix://$1" version >/dev/null 2>&1; }

# ensure_podman: starts a private Podman, and loads the busybox image into it. Fails,
# with a reason in PODMAN_LOG, where it cannot run. Nothing is installed: its programs are
# unpacked, and seen as /usr by itself alone.
ensure_podman() { with_engine_lock start_podman root "$PODMAN_SOCKET"; }

# ensure_user_podman: the same as an ordinary user (a rootless one). Its containers have no
# network, which that user could make only with /dev/net/tun.
ensure_user_podman() { with_engine_lock start_podman user "$PODMAN_USER_SOCKET"; }

# start_podman root|user SOCKET
start_podman() {
  local deadline
  podman_answers "$2" || {
    # shellcheck source=scripts/unpacked-lib.sh
    . "$SCRIPTS_DIR/unpacked-lib.sh"
    # In a subshell, since it ends the shell where a package cannot be had.
    (ensure_unpacked podman podman conmon crun netavark aardvark-dns catatonit uidmap \
      util-linux coreutils) >"$PODMAN_LOG" 2>&1 || return 1
    note "starting a private Podman ($1); its log is $PODMAN_LOG"
    # shellcheck disable=SC2034 # The callers read it.
    PODMAN_STARTED=yes
    setsid --fork unshare --mount --net "$SCRIPTS_DIR/podman" "$1" "$DSB_CACHE/podman" \
      "$PODMAN_DATA/$1" "$2" </dev/null >>"$PODMAN_LOG" 2>&1 9>&-
    deadline=$((SECONDS + PODMAN_START_SECONDS))
    until podman_answers "$2"; do
      [ "$SECONDS" -lt "$deadline" ] || return 1
      sleep 0.1
    done
  }
  [ -n "$(docker --host "unix://$2" images -q "$BUSYBOX_IMAGE")" ] ||
    docker save "$BUSYBOX_IMAGE" | docker --host "unix://$2" load >>"$PODMAN_LOG" 2>&1
}

# Ends the private Podman, and that of a user, with all containers.
stop_podman() {
  local socket containers pid
  for socket in "$PODMAN_SOCKET" "$PODMAN_USER_SOCKET"; do
    pid=$(cat "$socket.pid" 2>/dev/null) || continue
    if podman_answers "$socket"; then
      containers=$(docker --host "unix://$socket" ps --all --quiet)
      # shellcheck disable=SC2086 # One word an id.
      [ -z "$containers" ] || docker --host "unix://$socket" rm --force $containers >/dev/null 2>&1 || true
    fi
    ! is_process "$socket.pid" "$socket" || kill "$pid"
    rm -f "$socket.pid"
  done
}

# ---- images -----------------------------------------------------------------

# What an image is made from, as a number: a change makes a new image.
recipe_sum() {
  cat "$SCRIPTS_DIR/image/$1"* | sha256sum | cut -c 1-12
}

# image_is_loaded TAG SUM
image_is_loaded() {
  [ "$(docker image inspect -f '{{index .Config.Labels "recipe"}}' "$1" 2>/dev/null)" = "$2" ]
}

# ensure_image NAME TAG: loaded already, else from the cache, else built.
# They are made here, without a registry, from the machine's Debian archive.
ensure_image() {
  local name=$1 tag=$2 sum file old
  sum=$(recipe_sum "$name")
  file=$DSB_CACHE/$name-$sum.tar
  image_is_loaded "$tag" "$sum" && return 0
  if [ ! -e "$file" ]; then
    note "building the image $tag (once)"
    rm -f "$DSB_CACHE/$name"-*.tar "$DSB_CACHE/$name"-*.tar.new
    "build_$name" "$file.new"
    mv "$file.new" "$file"
  fi
  note "loading the image $tag"
  old=$(docker image inspect -f '{{.Id}}' "$tag" 2>/dev/null) || old=
  docker import --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    --change "LABEL recipe=$sum" --change 'CMD ["sh"]' "$file" "$tag" >/dev/null ||
    die "docker import $file did not succeed"
  # What had the tag before is of no more use, unless a container has it.
  [ -z "$old" ] || docker image rm "$old" >/dev/null 2>&1 || true
}

ensure_images() {
  mkdir -p "$DSB_CACHE"
  ensure_image debian "$DEBIAN_IMAGE"
  ensure_image busybox "$BUSYBOX_IMAGE"
}

build_debian() {
  local suite source
  need_packages mmdebstrap
  apt_update
  suite=$(debian_codename)
  source=$(debian_source "$suite") || die "no source for Debian $suite"
  "$SCRIPTS_DIR/image/debian" "$suite" "$source" "$1" >"$DSB_CACHE/mmdebstrap.log" 2>&1 || {
    tail -n 20 "$DSB_CACHE/mmdebstrap.log" >&2
    die "mmdebstrap did not succeed; see above"
  }
}

# The package is unpacked, not installed: it would displace `busybox`.
build_busybox() {
  require_debian_root "a static busybox"
  apt_update
  "$SCRIPTS_DIR/image/busybox" "$1" || die "building the busybox image did not succeed"
}
