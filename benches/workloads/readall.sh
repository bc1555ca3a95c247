#!/usr/bin/env bash
# about: every file of an image of 500 MB is read once: whoever fetches only what is read has nothing to gain
# ready: readall is ready
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step tools
debian_packages gcc libc6-dev git make
commit tools

step more
debian_packages g++
commit more

step reader
static_busybox "$WORK/merged/reader/busybox"
cat >"$WORK/merged/reader/run" <<TEXT
cd / && /reader/busybox find . -xdev -type f -print0 | /reader/busybox xargs -0 -n 500 /reader/busybox cat |
    /reader/busybox wc -c >/tmp/read || exit 1
echo "readall is ready: \$(/reader/busybox cat /tmp/read) bytes"
$STAY
TEXT
commit reader
write_image '{"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["/reader/busybox","sh","/reader/run"]}'
