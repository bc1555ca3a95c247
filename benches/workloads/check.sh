#!/usr/bin/env bash
# Does a workload's image run? Starts each from the cache folder (build.sh makes it there) twice in a row with a private
# containerd and its overlayfs, in the host's network and with nothing of the host's files, and waits for its line.
#
#     check.sh [NAME…]      all of them without names
set -Eeuo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$ROOT"
export SPANDREL_CACHE=${SPANDREL_CACHE:-/var/cache/spandrel-dev}
# shellcheck source=scripts/common.sh
source scripts/common.sh

# The slowest reads 200,000 files, on a machine that is busy with something else.
readonly READY_SECONDS=300

main() {
    require_root
    local names=("$@") name image
    [ $# -gt 0 ] || mapfile -t names < <(benches/workloads/build.sh --list)
    for name in "${names[@]}"; do benches/workloads/build.sh "$name" >/dev/null; done
    RUN=$(mktemp -d "$(scratch_base)/sp.XXXXXX")
    trap 'sweep "$RUN"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    start_containerd
    for name in "${names[@]}"; do
        image=$(benches/workloads/build.sh --key "$name")
        tar -C "$image" -cf - . | ctr image import --base-name "check/$name" - >/dev/null
        start_twice "$name"
        ctr image rm --sync "check/$name:latest" >/dev/null
    done
}

start_containerd() {
    cat >"$RUN/containerd.toml" <<TEXT
version = 2
root = "$RUN/containerd"
state = "$RUN/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "$RUN/c.sock"
[ttrpc]
  address = "$RUN/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$RUN/opt"
TEXT
    env TMPDIR="$RUN" setsid containerd -c "$RUN/containerd.toml" </dev/null >"$RUN/containerd.log" 2>&1 &
    until ctr version >/dev/null 2>&1; do
        kill -0 $! 2>/dev/null || die "containerd did not start: $(tail -n 5 "$RUN/containerd.log")"
        sleep 0.1
    done
}

ctr() { env TMPDIR="$RUN" ctr -a "$RUN/c.sock" "$@"; }

start_twice() {
    local name=$1 ready attempt container log begin client
    ready=$(sed -n '/^set /q; s/^# ready: //p' "benches/workloads/$name.sh")
    for attempt in 1 2; do
        container=check-$name-$attempt-$$ log=$RUN/$name.$attempt.log begin=${EPOCHREALTIME/[.,]/}
        : >"$log"
        ctr run --net-host --runc-root "$RUN/runc" "check/$name:latest" "$container" </dev/null >"$log" 2>&1 &
        client=$!
        until grep -qF "$ready" "$log"; do
            kill -0 "$client" 2>/dev/null || die "$name ended before it was ready: $(tail -n 20 "$log")"
            [ $((${EPOCHREALTIME/[.,]/} - begin)) -lt $((READY_SECONDS * 1000000)) ] || die "$name isn't ready after $READY_SECONDS s: $(tail -n 20 "$log")"
            sleep 0.02
        done
        printf '%-12s %7d ms  %s\n' "$name" $(((${EPOCHREALTIME/[.,]/} - begin) / 1000)) "$(grep -F "$ready" "$log" | tr '\n' '|')"
        sleep 0.3
        ctr task kill -s SIGTERM "$container" || true # it may have ended by itself
        for _ in $(seq 150); do
            kill -0 "$client" 2>/dev/null || break
            sleep 0.1
        done
        ! kill -0 "$client" 2>/dev/null || { warn "$name does not end at SIGTERM"; ctr task kill -s SIGKILL "$container" || true; }
        wait "$client" || true
        ctr container rm "$container" >/dev/null
    done
}

main "$@"
