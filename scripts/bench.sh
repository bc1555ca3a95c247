# shellcheck shell=bash
# `./dev bench` and its relatives: builds the optimised programs, then runs the benchmarks of `benches`. What they start
# and mount lies below one temporary folder and goes with it, however they end; results stay in the cache folder.
source scripts/install.sh

readonly BENCH_BIN=target/release

# The short tour: what a first reader wants to see.
readonly TOUR_WORKLOADS=python,node,redis TOUR_INDEX=python

# bench_ready [NAME=VALUE…]: what is needed is there and built, and the variables are set.
bench_ready() {
    local argument
    for argument in "$@"; do
        case $argument in
        WORKLOADS=* | SYSTEMS=* | NETWORKS=* | REPEATS=* | RESULTS=* | FULL=* | TRACE=*) export "${argument?}" ;;
        *) die "$argument: this takes WORKLOADS=, SYSTEMS=, NETWORKS= (lists with commas), REPEATS=, RESULTS=, FULL=1 and TRACE=" ;;
        esac
    done
    require_root
    require_kernel
    need_packages "${BUILD_PACKAGES[@]}" "${BENCH_RUN_PACKAGES[@]}"
    need_rust
    need_peers
    [ -e "$(peer_dir containerd-2.1)/VERSION" ] || die "every system is measured on containerd 2.1, and it could not be had:
Debian $CONTAINERD_RELEASE's has to be unpacked in $(peer_dir containerd-2.1) (see above for why it wasn't; ./dev install tries again)"
    say "building the programs (release; the first time takes minutes)"
    cargo build --release --workspace --bins
    BENCH_RUN=$(mktemp -d "$(scratch_base)/sp.XXXXXX")
    trap 'sweep "$BENCH_RUN"' EXIT
    # The programs end at these signals too, after tidying up; so this shell waits for them. A terminal's Ctrl-C is for the
    # program as well, which is why it isn't passed on; the others are for this shell alone.
    trap 'BENCH_STOPPED=1' INT
    trap 'bench_stop' TERM HUP
}

bench_stop() {
    BENCH_STOPPED=1
    [ -z "${BENCH_CHILD:-}" ] || kill -TERM "$BENCH_CHILD" 2>/dev/null || true
}

# attended COMMAND…: runs it so that signals reach this shell meanwhile; ends this shell when one did, after the command.
attended() {
    local status=0
    # What a shell starts in the background ignores Ctrl-C unless told otherwise.
    env --default-signal=INT,QUIT "$@" </dev/null &
    BENCH_CHILD=$!
    wait "$BENCH_CHILD" || status=$?
    # A signal ends the waiting, not the command.
    while kill -0 "$BENCH_CHILD" 2>/dev/null; do
        status=0
        wait "$BENCH_CHILD" || status=$?
    done
    BENCH_CHILD=
    [ -z "${BENCH_STOPPED:-}" ] || exit 130
    return "$status"
}

# measure_with PROGRAM [ARGUMENT…]: runs one of the benchmarks.
measure_with() { attended env TMPDIR="$BENCH_RUN" "$BENCH_BIN/$1" "${@:2}"; }

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
    # An interrupted tour is continued, by the same programs; a complete one is history.
    local results=$SPANDREL_CACHE/bench/tour programs
    programs=$(cat "$BENCH_BIN"/{bench-start,spandrel,spandrel-snapshotter} | sha256sum)
    if [ -e "$results/complete" ] || [ "$(cat "$results/programs" 2>/dev/null)" != "$programs" ]; then
        rm -rf "$results"
    fi
    mkdir -p "$results"
    echo "$programs" >"$results/programs"
    say "making the images of $TOUR_WORKLOADS,fs (the first time takes minutes)"
    # shellcheck disable=SC2046 # one word each
    attended benches/workloads/build.sh $(tr , ' ' <<<"$TOUR_WORKLOADS") fs >/dev/null
    export RESULTS=$results SYSTEMS=overlayfs,soci,spandrel NETWORKS=lan
    tour_part 1 "how soon containers are ready" 6 bench-start WORKLOADS=$TOUR_WORKLOADS REPEATS=2
    tour_part 2 "what an index costs" 1 bench-index WORKLOADS=$TOUR_INDEX REPEATS=1 SYSTEMS=spandrel,soci NETWORKS=local
    tour_part 3 "files in a container" 3 bench-fs WORKLOADS=short REPEATS=1
    "$BENCH_BIN/report" --print "$results"
    touch "$results/complete"
    say "the figures are kept in $results"
}

# tour_part NUMBER ABOUT MINUTES PROGRAM VARIABLE=VALUE…: a part of the tour, unless it was done before an interruption.
# The minutes are what it takes on two cores; the program says how many are really left.
tour_part() {
    local number=$1 about=$2 minutes=$3 program=$4
    shift 4
    if [ -e "$RESULTS/$program.complete" ]; then
        say "$number of 3: $about: done before"
        return
    fi
    say "$number of 3: $about (about $minutes of the tour's ten minutes)"
    attended env TMPDIR="$BENCH_RUN" "$@" "$BENCH_BIN/$program"
    touch "$RESULTS/$program.complete"
}

# bench_report [RESULTS…]: tables of result files; with none the newest of what bench-* left.
bench_report() {
    require_root
    need_packages "${BUILD_PACKAGES[@]}"
    need_rust
    cargo build --release -p spandrel-benches --bin report --quiet
    if [ $# -eq 0 ]; then
        "$BENCH_BIN/report" --print --newest "${RESULTS:-$SPANDREL_CACHE/bench/results}"
    else
        "$BENCH_BIN/report" "$@"
    fi
}

# bench_trace FILE…: where the time of a start went.
bench_trace() {
    need_packages "${BUILD_PACKAGES[@]}"
    need_rust
    cargo build --release -p spandrel-benches --bin bench-trace --quiet
    "$BENCH_BIN/bench-trace" "$@"
}

bench_micro() {
    need_packages "${BUILD_PACKAGES[@]}"
    need_rust
    cargo bench -p spandrel-benches --bench micro -- "$@"
}
