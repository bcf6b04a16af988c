# Sourced by the scripts beside it: one line per phase, one sentence on failure,
# -h prints the comment at the script's head. Leaves the shell in the repository's
# root. `bazel` may be another command by BAZEL, the cache another folder by
# DELTAPIPE_CACHE.
# shellcheck shell=bash
script_path=$(readlink -f "$0")
# shellcheck disable=SC2034  # used by the scripts that source this
start_folder=$PWD
script_name=${script_path##*/}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

# Phases and errors go to stderr; stdout is for results.
say() { echo "$script_name: $*" >&2; }
die() {
  say "$*"
  exit 1
}
usage() { sed -n '2,/^[^#]/{/^#/s/^# \{0,1\}//p}' "$script_path"; }

case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
esac

# shellcheck disable=SC2034
bazel=${BAZEL:-bazel}
# shellcheck disable=SC2034
cache=${DELTAPIPE_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/deltapipe}
need_cache() {
  [ -n "${DELTAPIPE_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ] || die "HOME is not set: set DELTAPIPE_CACHE"
}
