#!/usr/bin/env bash
# about: Debian's redis-server; on a Unix socket, so that several can run in the host's network
# ready: ready to accept connections
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step redis
debian_packages redis-server redis-tools tzdata
commit redis

step settings
mkdir "$WORK/merged/data"
chroot "$WORK/merged" chown redis:redis /data
cat >"$WORK/merged/etc/redis/container.conf" <<'TEXT'
port 0
unixsocket /data/redis.sock
daemonize no
logfile ""
dir /data
TEXT
commit settings
write_image '{"User":"redis","Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["redis-server","/etc/redis/container.conf"],"WorkingDir":"/data"}'
