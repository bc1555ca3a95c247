# shellcheck shell=bash
# `./dev bench` and its relatives: builds the optimised programs, then runs the benchmarks of `benches`. What they start
# and mount lies below one temporary folder and goes with it, however they end; results stay in the cache folder.
source scripts/install.sh

readonly BENCH_BIN=target/release
readonly BENCH_RUN_PACKAGES=(
    containerd:containerd runc:runc docker-registry containernetworking-plugins fuse3:fusermount3 # nodes
    busybox-static skopeo pigz                                                                    # images; containerd uses unpigz
)

# The short tour: what a first reader wants to see.
readonly TOUR_WORKLOADS=python,node,redis TOUR_INDEX=python

# bench_ready [NAME=VALUE…]: what is needed is there and built, and the variables are set.
bench_ready() {
    local argument
    for argument in "$@"; do
        case $argument in
        WORKLOADS=* | SYSTEMS=* | NETWORKS=* | REPEATS=* | RESULTS=* | FULL=*) export "${argument?}" ;;
        *) die "$argument: this takes WORKLOADS=, SYSTEMS=, NETWORKS= (lists with commas), REPEATS=, RESULTS= and FULL=1" ;;
        esac
    done
    require_root
    require_kernel
    need_packages "${BUILD_PACKAGES[@]}" "${BENCH_RUN_PACKAGES[@]}"
    need_rust
    need_peers
    say "building the programs (release; the first time takes minutes)"
    cargo build --release --workspace --bins
    BENCH_RUN=$(mktemp -d "$(scratch_base)/sp.XXXXXX")
    trap 'sweep "$BENCH_RUN"' EXIT
    # The programs end at these signals too, after tidying up; so this shell waits for them.
    trap 'BENCH_STOPPED=1' INT TERM HUP
}

# measure_with PROGRAM [ARGUMENT…]: runs one of the benchmarks.
measure_with() {
    local status=0
    env TMPDIR="$BENCH_RUN" "$BENCH_BIN/$1" "${@:2}" </dev/null || status=$?
    [ -z "${BENCH_STOPPED:-}" ] || exit 130
    return "$status"
}

bench_one() {
    local program=$1
    shift
    bench_ready "$@"
    measure_with "$program"
    say "results are in ${RESULTS:-$SPANDREL_CACHE/bench/results}; ./dev bench-report shows them"
}

bench_start() { bench_one bench-start "$@"; }
bench_fs() { bench_one bench-fs "$@"; }
bench_index() { bench_one bench-index "$@"; }
bench_node() { bench_one bench-node "$@"; }

bench() {
    [ $# -eq 0 ] || die "./dev bench takes no arguments: bench-start, bench-fs, bench-index and bench-node do"
    bench_ready
    # An interrupted tour is continued; a complete one is history.
    local results=$SPANDREL_CACHE/bench/tour
    [ ! -e "$results/complete" ] || rm -rf "$results"
    mkdir -p "$results"
    say "making the images of $TOUR_WORKLOADS,fs (the first time takes minutes)"
    # shellcheck disable=SC2046 # one word each
    benches/workloads/build.sh $(tr , ' ' <<<"$TOUR_WORKLOADS") fs >/dev/null
    export RESULTS=$results SYSTEMS=overlayfs,soci,spandrel NETWORKS=lan
    say "1 of 3: how soon containers are ready"
    WORKLOADS=$TOUR_WORKLOADS REPEATS=2 measure_with bench-start
    say "2 of 3: what an index costs"
    WORKLOADS=$TOUR_INDEX REPEATS=1 SYSTEMS=spandrel,soci NETWORKS=local measure_with bench-index
    say "3 of 3: files in a container"
    WORKLOADS=short REPEATS=1 measure_with bench-fs
    "$BENCH_BIN/report" --print "$results"
    touch "$results/complete"
    say "the figures are kept in $results"
}

# bench_report [RESULTS…]: tables of result files; with none of those that bench-* left.
bench_report() {
    require_root
    need_rust
    cargo build --release --workspace --bins --quiet
    if [ $# -eq 0 ]; then
        "$BENCH_BIN/report" --print "${RESULTS:-$SPANDREL_CACHE/bench/results}"
    else
        "$BENCH_BIN/report" "$@"
    fi
}

bench_micro() {
    need_packages "${BUILD_PACKAGES[@]}"
    need_rust
    cargo bench -p spandrel-benches --bench micro -- "$@"
}
