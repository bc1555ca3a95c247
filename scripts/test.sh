# shellcheck shell=bash
# `./dev test`: builds, runs the tests, and fails when they leave a process or a mount behind.
source scripts/install.sh
source scripts/conformance.sh

readonly CRATES=" ztoc erofs registry credentials soci proto snapshotter cli fixtures benches "

test() {
    local what=${1:-} status=0
    require_root
    require_kernel
    need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}"
    need_rust
    need_peers
    report_peers
    # Tests that build a Go program call `go`: the one that is new enough, wherever it lies.
    local go
    if go=$(find_go); then
        PATH=$(dirname "$go"):$PATH
        export PATH GOTOOLCHAIN=local
    fi

    # All that the tests write lies in one short-named folder (unix sockets have short paths), which marks their
    # processes too: so what they leave can be told from what others do on this machine. Not exported: it marks
    # children, and this shell is none.
    local run
    run=$(mktemp -d "$(scratch_base)/sp.XXXXXX")
    # Tests read files there as users that aren't root.
    chmod 711 "$run"
    # shellcheck disable=SC2064 # the folder is known now
    trap "sweep '$run'" EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM

    # The end-to-end tests start the programs, so these are built first.
    say "building the programs"
    cargo build --workspace --bins

    case $what in
    conformance) conformance "$run" || status=$? ;;
    e2e) cargo_test "$run" -p spandrel-snapshotter --test e2e "${@:2}" || status=$? ;;
    '')
        cargo_test "$run" --workspace --no-fail-fast || status=$?
        conformance "$run" || status=$?
        ;;
    *)
        if [[ $CRATES == *" $what "* ]]; then
            cargo_test "$run" -p "spandrel-$what" "${@:2}" || status=$?
        else
            cargo_test "$run" --workspace "$@" || status=$?
        fi
        ;;
    esac

    report_leftovers "$run" || status=1
    [ "$status" = 0 ] || die "tests failed"
    say "all of it passed"
}

cargo_test() {
    local run=$1
    shift
    say "cargo test $*"
    env TMPDIR="$run" cargo test "$@" </dev/null
}

# What lives on although its test has ended. A process may need a moment to die of its SIGTERM.
report_leftovers() {
    local run=$1 pid mounts pids=
    for _ in $(seq 25); do
        pids=$(processes_of "$run")
        [ -n "$pids" ] || break
        sleep 0.2
    done
    mounts=$(mounts_below "$run")
    [ -n "$pids$mounts" ] || return 0
    {
        echo "error: the tests left behind:"
        for pid in $pids; do
            printf '    process %s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c 1-200)"
        done
        [ -z "$mounts" ] || sed 's/^/    mount /' <<<"$mounts"
    } >&2
    return 1
}
