# shellcheck shell=bash
# Sourced by the scripts beside it: paths, messages, and steps that say what failed and what to do about it.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
requirements=$root/scripts/requirements
cd "$root"

# cmake and ninja from wheels, where scripts/setup found the system's too old.
export PATH=$venv/tools/bin:$PATH

say() { printf '==> %s\n' "$*"; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# The entries of a requirements file, without comments.
entries() { sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' "$1"; }

log=
# What the user can do about the error in the log, in one sentence.
advice() {
  if grep -qiE 'no space left|not enough free space|disk quota' "$log"; then
    echo "the disk is full ($(df -Ph "$root" | awk 'NR == 2 {print $4}') free in $root; about 5 GB are needed): free some and run this again"
  elif grep -qiE 'could not resolve|name or service not known|temporary failure|network is unreachable|connection (refused|timed out|reset|broken)|newconnectionerror|failed to establish|max retries|could not connect|failed to fetch|timed out' "$log"; then
    echo "the network or a proxy is in the way: check the connection (http_proxy, https_proxy, PIP_INDEX_URL) and run this again; what is done is kept"
  elif grep -qiE 'certificate_verify_failed|certificate verify failed' "$log"; then
    echo "a TLS certificate was refused: set PIP_CERT to your certificate bundle and run this again"
  elif grep -qiE 'could not get lock|unable to acquire the dpkg' "$log"; then
    echo "another apt is running: wait for it and run this again"
  elif grep -qiE 'killed signal|internal compiler error: killed|cannot allocate memory|out of memory' "$log"; then
    echo "memory ran out: run this again with ORYX_JOBS=1"
  else
    echo "its output is above"
  fi
}

# step NAME COMMAND...: runs the command; standard error is also kept, so that a failure can be explained.
step() {
  local name=$1 begin=$SECONDS
  shift
  say "$name"
  # Not below $root, whose disk may be the full one.
  if [ -z "$log" ]; then
    log=$(mktemp) || die "cannot write to ${TMPDIR:-/tmp}: free some space there or set TMPDIR"
    trap 'rm -f "$log"' EXIT
  fi
  : >"$log"
  if ! { "$@" 2>&1 1>&3 3>&- | tee -a "$log" >&2; } 3>&1; then
    die "$name failed: $(advice)"
  fi
  if [ $((SECONDS - begin)) -ge 2 ]; then say "done in $((SECONDS - begin)) s"; fi
}

# Compile jobs: a file that includes LibTorch takes about 1.2 GB.
build_jobs() {
  local cores memory
  cores=$(nproc)
  memory=$(awk '/^MemAvailable/ {n = int($2 / 1258291)} END {print n < 1 ? 1 : n}' /proc/meminfo)
  echo "${ORYX_JOBS:-$((cores < memory ? cores : memory))}"
}
