# shellcheck shell=bash
# What the workloads' scripts share, beside fixtures/images/lib.sh (layers and images): Debian's files without Debian,
# a static reader, and times that don't depend on the day. build.sh runs the scripts.
# shellcheck source=fixtures/images/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../fixtures/images/lib.sh"

# What programs in the images that have no init of their own do after they said that they are ready: stay until they
# are told to go. (The first process of a container doesn't die of SIGTERM unless it handles it.)
export STAY='trap "exit 0" TERM INT; sleep 86400 & wait'

# workload_begin MIRROR OUT_LAYOUT_DIR [NEEDED_LAYOUT]: the last one when the script's header says `# needs:`.
workload_begin() {
    image_begin "$1" "$2"
    # No package is newer than the release's own date, and compiled Python files hold the times of their sources: so
    # these stay, and what is written today gets that date.
    /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file "${MIRROR%/}/dists/$SUITE/InRelease" "$WORK/InRelease" >/dev/null
    LATEST_TIME=$(date -d "$(sed -n 's/^Date: //p' "$WORK/InRelease")" +%s)
    [ -z "${3:-}" ] || layers_of "$3"
}

# debian_packages PACKAGE…: installs into the step, less what tells the day.
debian_packages() {
    in_image_install "$@"
    rm -rf "$WORK"/merged/var/log/{apt/*,dpkg.log,alternatives.log} "$WORK/merged/var/cache/ldconfig/aux-cache"
}

# debian_files FOLDER PACKAGE…: only the files of these packages, nothing they depend on and nothing set up.
debian_files() {
    local dir=$1 apt=$WORK/apt package
    shift
    mkdir -p "$dir" "$apt/lists/partial" "$apt/archives/partial" "$apt/debs"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $SUITE main" >"$apt/sources.list"
    local get=(apt-get -q -q -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=/dev/null
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o Acquire::Languages=none -o APT::Sandbox::User=root)
    "${get[@]}" update </dev/null
    (cd "$apt/debs" && "${get[@]}" download "${@/%//$SUITE}" </dev/null)
    for package in "$apt"/debs/*.deb; do dpkg -x "$package" "$dir"; done
    rm -rf "$apt"
}

# static_busybox FILE: Debian's, which needs nothing else of an image.
static_busybox() {
    debian_files "$WORK/busybox-static" busybox-static
    install -D -m 755 "$WORK/busybox-static/bin/busybox" "$1"
    rm -rf "$WORK/busybox-static"
}

# python_files SCRIPT [ARGUMENT…]: runs a Python program of the script's own that writes files.
python_files() { PYTHONHASHSEED=0 /usr/bin/python3 -c "$@"; }
