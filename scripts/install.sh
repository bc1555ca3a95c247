# shellcheck shell=bash
# Installs what the subcommands need: Debian packages, a Rust toolchain, newer peers for interoperability tests, and
# cargo-deny. Each step looks first, says what it does, and does nothing when all is there.
# What it changes outside the cache folder: Debian packages, and ~/.cargo and ~/.rustup where there was no toolchain.

# "package" or "package:program": with a program, the package isn't wanted where the program is found (Docker's own
# containerd must not be replaced by Debian's).
readonly BUILD_PACKAGES=(ca-certificates curl gcc:cc libc6-dev)
readonly TEST_PACKAGES=(
    containerd:containerd runc:runc docker-registry containernetworking-plugins # containers, registry, pod networks
    busybox-static skopeo zstd pigz                                             # images and layers
    e2fsprogs:mkfs.ext4                                                         # a disk to be filled up
    apache2-utils                                                               # htpasswd
    groff-base:groff                                                            # man pages
    python3-venv                                                                # moto
)
readonly DEMO_PACKAGES=(
    containerd:containerd runc:runc docker-registry # both starts
    mmdebstrap python3-pip pigz attr skopeo         # the image
)
# Making the benchmarks' images (benches/workloads), and running them.
readonly BENCH_PACKAGES=(mmdebstrap pigz attr python3-pip npm:npm)
readonly BENCH_RUN_PACKAGES=(
    containerd:containerd runc:runc docker-registry containernetworking-plugins fuse3:fusermount3 # nodes
    busybox-static skopeo pigz                                                                    # images; containerd uses unpigz
)

# The releases that newer peers are taken from, when this machine's own has an older one.
readonly CONTAINERD_RELEASE=forky CONTAINERD_AT_LEAST=2.1
readonly SOCI_RELEASE=trixie SOCI_AT_LEAST=0.4.1

# An emulation of AWS, from the Python package index.
readonly MOTO=5.2.5

readonly CARGO_DENY=0.20.2

# containerd's test suite asks for it (fixtures/conformance/go.mod).
readonly MIN_GO=1.24

install() {
    require_root
    need_packages "${BUILD_PACKAGES[@]}" "${TEST_PACKAGES[@]}" "${DEMO_PACKAGES[@]}" "${BENCH_PACKAGES[@]}" "${BENCH_RUN_PACKAGES[@]}"
    need_rust
    need_peers
    need_cargo_deny
    say "everything is installed"
}

# ---- Debian packages

package_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

need_packages() {
    local spec missing=()
    have apt-get || die "this needs apt-get (Debian 12, or a relative of it)"
    for spec in "$@"; do
        case $spec in
        *:*) have "${spec#*:}" && continue ;;
        esac
        package_installed "${spec%%:*}" || missing+=("${spec%%:*}")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    locked apt_install "${missing[@]}"
}

# Nothing is removed for it, and no service that comes with a package is started: tests and demo start their own. What
# apt says is only of interest when it fails.
apt_install() {
    local log apt=(env DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 apt-get -q -o DPkg::Lock::Timeout=500 -o Dpkg::Use-Pty=0)
    log=$(mktemp)
    if ! { "${apt[@]}" update && "${apt[@]}" install -y --no-install-recommends --no-remove "$@"; } </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "these packages could not be installed: $*"
    fi
    rm -f "$log"
}

# ---- Rust

rust_wanted() { sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml; }
rust_minimum() { sed -n 's/^rust-version *= *"\(.*\)"/\1/p' Cargo.toml; }

# Puts a toolchain on the PATH: rustup's pinned one, else one that is new enough, else rustup is installed.
need_rust() {
    local wanted minimum
    wanted=$(rust_wanted)
    minimum=$(rust_minimum)
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    if ! have rustup; then
        if have cargo && at_least "$(cargo --version | cut -d ' ' -f 2)" "$minimum"; then
            return
        fi
        need_packages "${BUILD_PACKAGES[@]}"
        say "installing rustup with its official installer (into ${CARGO_HOME:-~/.cargo} and ${RUSTUP_HOME:-~/.rustup}): no Rust $minimum or later here"
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs |
            sh -s -- -y --no-modify-path --profile minimal --default-toolchain none ||
            die "rustup could not be installed; install Rust $wanted by hand and run this again"
    fi
    rustup toolchain list | grep -q "^$wanted-" && return
    say "installing Rust $wanted with rustup"
    rustup toolchain install "$wanted" --profile minimal --component rustfmt --component clippy && return
    local toolchain
    for toolchain in $(rustup toolchain list | cut -d ' ' -f 1); do
        if at_least "$(rustc "+$toolchain" --version | cut -d ' ' -f 2)" "$minimum"; then
            warn "Rust $wanted can't be had; building with $toolchain instead"
            export RUSTUP_TOOLCHAIN=$toolchain
            return
        fi
    done
    die "no Rust $minimum or later could be installed"
}

# ---- Go, which is used where it is found and never installed: Debian 12's is too old

# Prints the go command to use; fails where there is none that is new enough.
find_go() {
    local go
    for go in "$(command -v go || true)" /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
        [ -x "$go" ] || continue
        if at_least "$(GOTOOLCHAIN=local "$go" env GOVERSION | sed 's/^go//')" "$MIN_GO"; then
            echo "$go"
            return
        fi
    done
    return 1
}

# ---- newer peers: unpacked into the cache folder, never installed

peer_dir() { echo "$SPANDREL_CACHE/peers/$1"; }

# Each of them is wanted by some tests only, which say what they miss: so a failure here is a warning.
need_peers() {
    need_peer containerd-2.1 containerd "$CONTAINERD_RELEASE" "$CONTAINERD_AT_LEAST"
    need_peer soci-0.4.1 soci-snapshotter "$SOCI_RELEASE" "$SOCI_AT_LEAST"
    need_moto
}

need_moto() {
    [ "$(cat "$(peer_dir moto)/VERSION" 2>/dev/null)" != "$MOTO" ] || return 0
    say "installing moto $MOTO into $(peer_dir moto)"
    locked install_moto || warn "moto could not be had; tests that need it say so"
}

# An environment of its own for Debian's Python. Only what its server needs: all of its extras take twice the room.
install_moto() {
    local dir log
    dir=$(peer_dir moto)
    [ "$(cat "$dir/VERSION" 2>/dev/null)" != "$MOTO" ] || return 0
    log=$(mktemp)
    rm -rf "$dir"
    if ! { /usr/bin/python3 -m venv "$dir" && "$dir/bin/pip" install -q "moto==$MOTO" flask flask-cors; } </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        rm -rf "$log" "$dir"
        return 1
    fi
    rm -f "$log"
    echo "$MOTO" >"$dir/VERSION"
}

need_peer() {
    local name=$1 package=$2 release=$3 minimum=$4
    [ ! -e "$(peer_dir "$name")/VERSION" ] || return 0
    say "unpacking $package of Debian $release into $(peer_dir "$name")"
    locked unpack_peer "$name" "$package" "$release" "$minimum" ||
        warn "$name could not be had; tests that need it say so"
}

# The mirror of this machine's own sources, or Debian's public name where they don't tell.
debian_mirror() {
    local mirror
    # shellcheck disable=SC2016 # apt's own variables
    mirror=$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(ORIGIN) $(REPO_URI)' 'Created-By: Packages' |
        awk -v codename="$(. /etc/os-release && echo "${VERSION_CODENAME:-}")" \
            '$1 == codename && $2 == "main" && $3 == "Debian" { print $4; exit }')
    echo "${mirror:-http://deb.debian.org/debian}"
}

# Runs under the lock, in a subshell of its own. Lists and downloads live in a temporary folder; apt checks signatures
# and hashes as ever.
unpack_peer() {
    local name=$1 package=$2 release=$3 minimum=$4 dir work version
    dir=$(peer_dir "$name")
    [ ! -e "$dir/VERSION" ] || return 0
    mkdir -p "$SPANDREL_CACHE/peers"
    work=$(mktemp -d "$SPANDREL_CACHE/peers/.$name.XXXXXX")
    # shellcheck disable=SC2064 # the folder is known now
    trap "rm -rf '$work'" EXIT
    mkdir -p "$work"/lists/partial "$work"/archives/partial "$work/root"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(debian_mirror) $release main" >"$work/sources.list"
    local apt=(apt-get -q -q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$work/lists" -o "Dir::Cache=$work" -o "Dir::Cache::archives=$work/archives"
        -o Acquire::Languages=none -o APT::Sandbox::User=root)
    "${apt[@]}" update </dev/null || return
    (cd "$work" && "${apt[@]}" download "$package/$release" </dev/null) || return
    dpkg -x "$work"/*.deb "$work/root" || return
    version=$(dpkg-deb -f "$work"/*.deb Version) || return
    if ! dpkg --compare-versions "$version" ge "$minimum"; then
        warn "Debian $release has $package $version, older than $minimum"
        return 1
    fi
    echo "$version" >"$work/root/VERSION"
    chmod 755 "$work/root"
    mv "$work/root" "$dir"
}

# Which real peers the tests will meet, and which they won't.
report_peers() {
    local name go
    say "peers:"
    printf '    %-16s %s\n' \
        containerd "$(containerd --version 2>/dev/null | awk '{ print $3 }' || true)" \
        runc "$(runc --version 2>/dev/null | awk 'NR == 1 { print $3 }' || true)" \
        docker-registry "$(dpkg-query -W -f '${Version}' docker-registry 2>/dev/null || true)"
    for name in containerd-2.1 soci-0.4.1 moto; do
        printf '    %-16s %s\n' "$name" "$(cat "$(peer_dir "$name")/VERSION" 2>/dev/null || echo 'MISSING')"
    done
    printf '    %-16s %s\n' go "$({ go=$(find_go) && "$go" env GOVERSION; } || echo "MISSING (needs $MIN_GO or later)")"
}

# ---- cargo-deny

cargo_deny_dir() { echo "$SPANDREL_CACHE/tools/cargo-deny-$CARGO_DENY"; }

need_cargo_deny() {
    need_rust
    [ ! -x "$(cargo_deny_dir)/bin/cargo-deny" ] || return 0
    say "building cargo-deny $CARGO_DENY into $(cargo_deny_dir)"
    locked build_cargo_deny
}

build_cargo_deny() {
    [ ! -x "$(cargo_deny_dir)/bin/cargo-deny" ] || return 0
    # Unoptimised: two minutes of one core rather than six, for a check that then takes seconds.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --no-default-features \
        --root "$(cargo_deny_dir)" --version "$CARGO_DENY" cargo-deny </dev/null
}
