# shellcheck shell=bash
# containerd's own test suite for snapshotters (fixtures/conformance, Go) against our daemon on a root of its own.
# Part of `./dev test`; the suite's program works against any snapshotter's socket.

# As many as the suite has: fewer means that one was skipped, or that a newer suite wasn't looked at.
readonly CONFORMANCE_TESTS=21
# The daemon probes the kernel and mounts before it listens; far less than this, but for a machine busy with tests.
readonly DAEMON_START_SECONDS=30

# conformance RUN_FOLDER: needs target/debug/spandrel-snapshotter.
conformance() {
    local run=$1 go dir daemon passed status=0
    if ! go=$(find_go); then
        [ -z "${CI:-}" ] || die "containerd's conformance suite needs Go $MIN_GO or later"
        warn "SKIPPED: containerd's conformance suite needs Go $MIN_GO or later (https://go.dev/dl)"
        return 0
    fi
    say "containerd's conformance suite"
    (cd fixtures/conformance && GOTOOLCHAIN=local "$go" test -c -o "$ROOT/target/conformance.test" .) || return

    dir=$(mktemp -d "$run/c.XXXXXX")
    : >"$dir/config.toml"
    env TMPDIR="$dir" target/debug/spandrel-snapshotter --config "$dir/config.toml" --root "$dir/root" \
        --address "$dir/s.sock" </dev/null >"$dir/log" 2>&1 &
    daemon=$!
    for _ in $(seq $((DAEMON_START_SECONDS * 10))); do
        [ ! -S "$dir/s.sock" ] && kill -0 "$daemon" 2>/dev/null || break
        sleep 0.1
    done
    if [ -S "$dir/s.sock" ]; then
        env TMPDIR="$dir" target/conformance.test -test.v -address "$dir/s.sock" </dev/null >"$dir/suite.log" 2>&1 || status=$?
        grep -E '^ *--- |^(PASS|FAIL|panic)' "$dir/suite.log" || true
        passed=$(grep -c '^    --- PASS' "$dir/suite.log" || true)
        if [ "$status" = 0 ] && [ "$passed" != "$CONFORMANCE_TESTS" ]; then
            warn "$passed of $CONFORMANCE_TESTS tests ran"
            status=1
        fi
        [ "$status" = 0 ] || tail -n 200 "$dir/suite.log"
    else
        warn "spandrel-snapshotter didn't listen within $DAEMON_START_SECONDS s"
        status=1
    fi
    [ "$status" = 0 ] || {
        echo "the daemon's log:"
        tail -n 50 "$dir/log"
    }
    kill -TERM "$daemon" 2>/dev/null || true
    wait "$daemon" || warn "spandrel-snapshotter ended with $?"
    # At SIGTERM mounts stay for the next start on purpose; there is none here.
    sweep "$dir"
    printf 'conformance: %s passed, %s failed\n' "$passed" "$((CONFORMANCE_TESTS - passed))"
    return "$status"
}
