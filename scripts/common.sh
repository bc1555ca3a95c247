# shellcheck shell=bash
# What every subcommand shares: messages, what the machine must be, the cache folder. Installing is install.sh's.

# EROFS mounts from plain files came with this kernel.
readonly MIN_KERNEL=6.12

say() { printf '==> %s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# at_least VERSION MINIMUM, by dotted numbers.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

require_root() {
    [ "$(id -u)" = 0 ] || die "./dev must run as root: it installs packages and mounts filesystems (sudo ./dev …)"
}

require_kernel() {
    local release
    release=$(uname -r)
    at_least "${release%%-*}" "$MIN_KERNEL" && return
    die "this is Linux $release; Spandrel needs $MIN_KERNEL or later (EROFS mounted from a file).
On Debian 12 add bookworm-backports to the apt sources, then:
    apt-get update && apt-get install -t bookworm-backports linux-image-$(dpkg --print-architecture 2>/dev/null || echo amd64)
and reboot."
}

# One run at a time changes the cache folder or installs packages: `locked COMMAND…`.
locked() {
    mkdir -p "$SPANDREL_CACHE"
    (
        flock -n 9 || {
            say "waiting for another ./dev that is installing"
            flock 9
        }
        "$@"
    ) 9>"$SPANDREL_CACHE/lock"
}

# A folder where the daemon can keep its root (ext4 or xfs), with a path short enough for unix sockets.
scratch_base() {
    local dir
    for dir in "${TMPDIR:-/tmp}" /var/tmp "$SPANDREL_CACHE"; do
        case $(stat -f -c %T "$dir" 2>/dev/null) in
        ext2/ext3 | xfs)
            echo "$dir"
            return
            ;;
        esac
    done
    die "none of ${TMPDIR:-/tmp}, /var/tmp, $SPANDREL_CACHE is on ext4 or xfs; set TMPDIR to a folder that is"
}

# Every process that was started with TMPDIR=$1 (or below it), whoever its parent is by now. (A shell that exports
# TMPDIR later isn't one of them: /proc shows what a program was started with.)
processes_of() { grep -lszE "^TMPDIR=$1(/|\$)" /proc/[0-9]*/environ | cut -d / -f 3 || true; }

# Mount points below a folder, the last mounted first.
mounts_below() {
    awk -v dir="$1/" 'index($5 "/", dir) == 1 { gsub(/\\040/, " ", $5); print $5 }' /proc/self/mountinfo | tac
}

# Ends what a run left below its folder: processes, then mounts, then files. Says nothing when there is nothing.
sweep() {
    local dir=$1 pid mount
    for pid in $(processes_of "$dir"); do kill -TERM "$pid" 2>/dev/null || true; done
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        [ -n "$(processes_of "$dir")" ] || break
        sleep 0.2
    done
    for pid in $(processes_of "$dir"); do kill -KILL "$pid" 2>/dev/null || true; done
    while read -r mount; do
        umount "$mount" 2>/dev/null || umount -l "$mount" 2>/dev/null || true
    done < <(mounts_below "$dir")
    rm -rf --one-file-system "$dir"
}
