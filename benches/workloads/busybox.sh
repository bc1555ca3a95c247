#!/usr/bin/env bash
# about: Debian's static busybox, one small layer: the least that starting a container costs
# ready: busybox is ready
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
root=$WORK/root
static_busybox "$root/bin/busybox"
mkdir -p "$root"/{dev,etc,home,proc,root,sys,tmp,usr/bin,usr/sbin,sbin,var}
chmod 1777 "$root/tmp"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
chroot "$root" /bin/busybox --install -s
add_layer "$root"
write_image "{\"Env\":[\"PATH=/usr/sbin:/usr/bin:/sbin:/bin\"],\"Cmd\":[\"sh\",\"-c\",\"echo busybox is ready; ${STAY//\"/\\\"}\"]}"
