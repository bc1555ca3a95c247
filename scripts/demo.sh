# shellcheck shell=bash
# `./dev demo`: one image started twice, each time with every cache empty: pulled by containerd for its own overlayfs,
# and lazily by Spandrel. Prints, side by side, when the program inside said its first line and what that had fetched.
# Everything it starts and mounts lives below one temporary folder and goes with it, however the demo ends.
source scripts/install.sh

# The network between node and registry, made by the shaping proxy (fixtures): what a small cloud machine has.
readonly DEMO_RATE=125000000 DEMO_RATE_NAME='1 Gbit/s'
readonly DEMO_LATENCY_MS=10
BIN=target/release
# No program of the demo takes nearly as long to listen, but for a machine that is busy with something else.
readonly DEMO_START_SECONDS=60

demo() {
    require_root
    require_kernel
    need_packages "${BUILD_PACKAGES[@]}" "${DEMO_PACKAGES[@]}"
    need_rust
    need_peer containerd-2.1 containerd "$CONTAINERD_RELEASE" "$CONTAINERD_AT_LEAST"

    say "building Spandrel and the shaping proxy (release; the first time takes minutes)"
    cargo build --release -p spandrel-cli -p spandrel-snapshotter -p spandrel-fixtures --bins

    local image
    image=$SPANDREL_CACHE/images/python-$(cat fixtures/images/{python,lib}.sh | sha256sum | cut -c 1-12)
    if [ ! -e "$image/index.json" ]; then
        say "making the image: Debian, Python, numpy, pandas (kept in $image)"
        locked make_image "$image"
    fi

    RUN=$(mktemp -d "$(scratch_base)/sp.XXXXXX")
    trap demo_cleanup EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    find_containerd
    start_registry
    start_proxy

    say "pushing the image to the registry, and its index after it"
    skopeo --insecure-policy copy --quiet --dest-tls-verify=false "oci:$image:latest" "docker://$REGISTRY/demo/python:latest"
    "$BIN/spandrel" create "$REGISTRY/demo/python:latest" --store "$RUN/store" --cache-size 0 --push

    say "first start: containerd's pull for overlayfs"
    measure overlayfs
    say "second start: lazily, with Spandrel"
    measure spandrel
    report "$image"
}

make_image() {
    [ ! -e "$1/index.json" ] || return 0
    mkdir -p "$(dirname "$1")"
    fixtures/images/python.sh "$(debian_mirror)" "$1"
}

demo_cleanup() {
    trap - EXIT
    stop_node
    sweep "$RUN"
}

# ---- the parts

# start NAME COMMAND…: in the background, in a session of its own (Ctrl-C is for the script, which ends them in
# order), marked by TMPDIR as ours. Its process is $STARTED.
start() {
    local name=$1
    shift
    env TMPDIR="$RUN" setsid "$@" </dev/null >"$RUN/$name.log" 2>&1 &
    STARTED=$!
}

# wait_for NAME COMMAND…: until the command succeeds, the program has ended or time is up.
wait_for() {
    local name=$1 process=$STARTED
    shift
    for _ in $(seq $((DEMO_START_SECONDS * 20))); do
        ! "$@" >/dev/null 2>&1 || return 0
        kill -0 "$process" 2>/dev/null || break
        sleep 0.05
    done
    tail -n 20 "$RUN/$name.log" >&2
    die "$name did not start"
}

stop() {
    local process=$1
    kill -TERM "$process" 2>/dev/null || return 0
    wait "$process" 2>/dev/null || true
}

find_containerd() {
    local peer
    peer=$(peer_dir containerd-2.1)/usr/bin
    if [ -x "$peer/containerd" ]; then
        CONTAINERD_BIN=$peer
        # containerd looks for its shim beside itself and on the PATH.
        PATH=$peer:$PATH
    else
        CONTAINERD_BIN=$(dirname "$(command -v containerd)")
    fi
    CONTAINERD_VERSION=$("$CONTAINERD_BIN/containerd" --version | awk '{ print $3 }')
}

start_registry() {
    cat >"$RUN/registry.yml" <<TEXT
version: 0.1
log: { level: info, accesslog: { disabled: true } }
storage: { filesystem: { rootdirectory: $RUN/registry } }
http: { addr: "127.0.0.1:0" }
TEXT
    start registry docker-registry serve "$RUN/registry.yml"
    wait_for registry grep -q 'listening on 127' "$RUN/registry.log"
    REGISTRY=$(sed -n 's/.*listening on \(127[0-9.:]*\).*/\1/p' "$RUN/registry.log")
}

start_proxy() {
    start proxy "$BIN/shaping-proxy" --upstream "$REGISTRY" --rate "$DEMO_RATE" --latency "$DEMO_LATENCY_MS" \
        --control 127.0.0.1:0
    wait_for proxy grep -q '^control on' "$RUN/proxy.log"
    SHAPED=$(sed -n 's/^listening on //p' "$RUN/proxy.log")
    CONTROL=$(sed -n 's/^control on //p' "$RUN/proxy.log")
}

# What has passed the proxy: "BYTES REQUESTS", from the registry and to it.
passed() {
    local line
    exec 8<>"/dev/tcp/${CONTROL%:*}/${CONTROL#*:}"
    read -r line <&8
    exec 8<&-
    /usr/bin/python3 -c 'import json, sys; c = json.loads(sys.argv[1]); print(c["bytes_down"], sum(c["requests"].values()))' "$line"
}

# start_node SNAPSHOTTER: a containerd that has never seen an image, and for Spandrel its daemon.
start_node() {
    local node=$RUN/$1
    mkdir "$node"
    if [ "$1" = spandrel ]; then
        printf '[containerd]\naddress = "%s"\n' "$node/c.sock" >"$node/spandrel.toml"
        start snapshotter "$BIN/spandrel-snapshotter" --config "$node/spandrel.toml" --root "$node/root" --address "$node/s.sock"
        SNAPSHOTTER=$STARTED
        wait_for snapshotter test -S "$node/s.sock"
    fi
    cat >"$node/containerd.toml" <<TEXT
version = 2
root = "$node/containerd"
state = "$node/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]
[grpc]
  address = "$node/c.sock"
[ttrpc]
  address = "$node/c.sock.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "$node/opt"
[proxy_plugins.spandrel]
  type = "snapshot"
  address = "$node/s.sock"
TEXT
    CONTAINERD_ADDRESS=$node/c.sock
    start containerd "$CONTAINERD_BIN/containerd" -c "$node/containerd.toml"
    CONTAINERD=$STARTED
    wait_for containerd "$CONTAINERD_BIN/ctr" -a "$CONTAINERD_ADDRESS" version
}

# Containers first, then containerd, then what serves their files.
stop_node() {
    if [ -n "${CONTAINER:-}" ]; then
        runc --root "$RUN/runc/default" delete --force "$CONTAINER" >/dev/null 2>&1 || true
    fi
    [ -z "${CONTAINERD:-}" ] || stop "$CONTAINERD"
    [ -z "${SNAPSHOTTER:-}" ] || stop "$SNAPSHOTTER"
    CONTAINER='' CONTAINERD='' SNAPSHOTTER=''
}

# ---- the measurement

# Nothing of the image is in memory on the node's side; the registry's files and the programs are, as they would be.
drop_caches() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
    cat "$RUN"/registry/docker/registry/v2/blobs/sha256/*/*/data >/dev/null
    cat "$CONTAINERD_BIN"/containerd "$CONTAINERD_BIN"/containerd-shim-runc-v2 "$CONTAINERD_BIN"/ctr "$(command -v runc)" \
        "$BIN/spandrel" "$BIN/spandrel-snapshotter" >/dev/null
}

now_us() { echo "${EPOCHREALTIME/[.,]/}"; }

# measure SNAPSHOTTER: sets SECONDS_…, PULL_…, BYTES_…, REQUESTS_…, LINE_… of that name.
measure() {
    local snapshotter=$1 begin pulled first line bytes requests bytes_before requests_before
    start_node "$snapshotter"
    drop_caches
    read -r bytes_before requests_before < <(passed)
    CONTAINER=demo-$snapshotter-$$

    begin=$(now_us)
    pull "$snapshotter" >"$RUN/pull.log" 2>&1 || {
        cat "$RUN/pull.log" "$RUN/containerd.log" >&2
        die "the pull failed"
    }
    pulled=$(now_us)
    exec 7< <(exec env TMPDIR="$RUN" "$CONTAINERD_BIN/ctr" -a "$CONTAINERD_ADDRESS" run --rm --runc-root "$RUN/runc" \
        --snapshotter "$snapshotter" "$SHAPED/demo/python:latest" "$CONTAINER" 2>"$RUN/run.log")
    local run=$!
    read -r line <&7 || {
        cat "$RUN/run.log" >&2
        die "the program said nothing"
    }
    first=$(now_us)
    read -r bytes requests < <(passed)
    exec 7<&-
    wait "$run" || die "the program failed: $(cat "$RUN/run.log")"
    printf '    %s\n' "$line"

    printf -v "PULL_$snapshotter" %s $((pulled - begin))
    printf -v "TIME_$snapshotter" %s $((first - begin))
    printf -v "BYTES_$snapshotter" %s $((bytes - bytes_before))
    printf -v "REQUESTS_$snapshotter" %s $((requests - requests_before))
    stop_node
}

pull() {
    local image=$SHAPED/demo/python:latest
    if [ "$1" = spandrel ]; then
        "$BIN/spandrel" --address "$CONTAINERD_ADDRESS" pull "$image"
    else
        "$CONTAINERD_BIN/ctr" -a "$CONTAINERD_ADDRESS" image pull --plain-http --snapshotter "$1" "$image"
    fi
}

report() {
    say "the same image, the same registry behind $DEMO_RATE_NAME and $DEMO_LATENCY_MS ms, every cache empty"
    awk -v p0="$PULL_overlayfs" -v p1="$PULL_spandrel" -v t0="$TIME_overlayfs" -v t1="$TIME_spandrel" \
        -v b0="$BYTES_overlayfs" -v b1="$BYTES_spandrel" -v r0="$REQUESTS_overlayfs" -v r1="$REQUESTS_spandrel" 'BEGIN {
        row = "    %-34s %16s %16s   %s\n"
        printf row, "", "overlayfs", "spandrel", ""
        printf row, "until the program'\''s first line", sprintf("%.2f s", t0 / 1e6), sprintf("%.2f s", t1 / 1e6), sprintf("%.1f times sooner", t0 / t1)
        printf row, "  of that the pull", sprintf("%.2f s", p0 / 1e6), sprintf("%.2f s", p1 / 1e6), ""
        printf row, "fetched until then", sprintf("%.1f MB", b0 / 1e6), sprintf("%.1f MB", b1 / 1e6), sprintf("%.0f %%", 100 * b1 / b0)
        printf row, "requests until then", r0, r1, ""
    }'
    echo "    (Spandrel fetches the rest of a mounted image, too, behind what the program waits for: fetch.background)"
    echo "    (containerd $CONTAINERD_VERSION, $(unpacker), Linux $(uname -r), $(nproc) cores; image of $(image_size "$1"))"
}

# Of the layers of an OCI layout: gzip ends with the size of what it holds.
image_size() {
    local blob packed=0 size=0 layers=0
    for blob in "$1"/blobs/sha256/*; do
        [ "$(head -c 2 "$blob" | od -An -tx1)" = ' 1f 8b' ] || continue
        layers=$((layers + 1))
        packed=$((packed + $(stat -c %s "$blob")))
        size=$((size + $(tail -c 4 "$blob" | od -An -tu4)))
    done
    echo "$((size / 1000000)) MB ($((packed / 1000000)) MB compressed) in $layers layers"
}

# containerd inflates with unpigz where it finds one: twice as fast as without.
unpacker() { if have unpigz; then echo "unpacking with unpigz"; else echo "unpacking with its own gunzip"; fi; }
