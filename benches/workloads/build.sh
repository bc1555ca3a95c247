#!/usr/bin/env bash
# Makes the benchmarks' images, once each: an image is kept in the cache folder under its script's name and the hash of
# all that says how it is made.
#
#     build.sh NAME…        makes what isn't there yet, and prints where each is (an OCI layout, tagged `latest`)
#     build.sh --key NAME   prints only where it is or would be
#     build.sh --list       prints the workloads' names
#
# A workload is a script here with the header lines `# about:` and `# ready:` (what its line on stdout or stderr that
# means ready contains); `# needs:` names the script whose layers it has below its own, `# env:` the variables it reads.
# It is run as NAME.sh MIRROR OUT_LAYOUT_DIR [LAYOUT_OF_WHAT_IT_NEEDS]. Messages are on stderr.
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$ROOT"
export SPANDREL_CACHE=${SPANDREL_CACHE:-/var/cache/spandrel-dev}
# shellcheck source=scripts/common.sh
source scripts/common.sh
# shellcheck source=scripts/install.sh
source scripts/install.sh

readonly WORKLOADS=benches/workloads IMAGES=$SPANDREL_CACHE/bench/images

main() {
    case ${1:-} in
    --list) list ;;
    --key) key "${2:?the name of a workload}" ;;
    '' | -*) die "usage: build.sh NAME… | --key NAME | --list" ;;
    *)
        local name
        for name in "$@"; do key "$name" >/dev/null; done
        require_root
        need_packages "${BENCH_PACKAGES[@]}" >&2
        mkdir -p "$IMAGES"
        for name in "$@"; do
            build "$name" >&2
            key "$name"
        done
        ;;
    esac
}

list() {
    local script
    for script in "$WORKLOADS"/*.sh; do
        [ -z "$(header "$script" ready)" ] || basename "$script" .sh
    done
}

# header SCRIPT FIELD: what its header says there; a line for each time it does.
header() { sed -n "/^set /q; s/^# $2: //p" "$1"; }

script_of() {
    local script=$WORKLOADS/$1.sh
    case $1 in
    */* | lib | build) ;;
    *) if [ -f "$script" ]; then
        echo "$script"
        return
    fi ;;
    esac
    die "there is no workload $1; there are: $(list | tr '\n' ' ')"
}

key() {
    local recipe
    recipe=$(recipe "$1")
    echo "$IMAGES/$1-$(sha256sum <<<"$recipe" | cut -c 1-12)"
}

# Everything that says how an image is made.
recipe() {
    local script needs
    script=$(script_of "$1")
    cat "$script" "$WORKLOADS/lib.sh" fixtures/images/lib.sh
    needs=$(header "$script" needs)
    [ -z "$needs" ] || recipe "$needs"
}

build() {
    local name=$1 script needs image arguments=()
    image=$(key "$name")
    [ ! -e "$image/index.json" ] || return 0
    script=$(script_of "$name")
    needs=$(header "$script" needs)
    if [ -n "$needs" ]; then
        build "$needs"
        arguments=("$(key "$needs")")
    fi
    # One at a time makes this image; others wait for it, and then have it.
    (
        flock 8
        [ ! -e "$image/index.json" ] || exit 0
        say "making the image $name: $(header "$script" about)"
        make_once "$name" "$script" "$image" "${arguments[@]}"
    ) 8>"$IMAGES/.$name.lock"
}

# Makes it beside its place and moves it there when it is whole. What an earlier try left (it was killed) goes first.
make_once() {
    local name=$1 script=$2 image=$3 stale mount work
    shift 3
    for stale in "$IMAGES/.making-$name".*; do
        while read -r mount; do umount -l "$mount" || true; done < <(mounts_below "$stale")
        rm -rf --one-file-system "$stale"
    done
    work=$(mktemp -d "$IMAGES/.making-$name.XXXXXX")
    # shellcheck disable=SC2064 # the folder is known now
    trap "rm -rf --one-file-system '$work'" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    bash "$script" "$(debian_mirror)" "$work/layout" "$@" 8>&-
    mv -T "$work/layout" "$image"
}

main "$@"
