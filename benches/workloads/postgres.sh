#!/usr/bin/env bash
# about: PostgreSQL 15, which makes its data folder at the start; on a Unix socket, so that several can run
# ready: database system is ready to accept connections
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step postgres
with_proc
debian_packages postgresql-common
# No data in the image, and nothing is started while it is made.
sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' "$WORK/merged/etc/postgresql-common/createcluster.conf"
debian_packages postgresql-15 locales tzdata
commit postgres

step entrypoint
mkdir -p "$WORK/merged/var/lib/postgresql/data"
cat >"$WORK/merged/usr/local/bin/entrypoint.sh" <<'TEXT'
#!/bin/bash
# As root: makes the data folder when there is none yet, then runs the server as its user.
set -euo pipefail
as_postgres() { exec setpriv --reuid postgres --regid postgres --init-groups "$@"; }
install -d -m 700 -o postgres -g postgres "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    (as_postgres initdb --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8)
fi
as_postgres postgres -c listen_addresses= -c unix_socket_directories="$PGDATA"
TEXT
chmod 755 "$WORK/merged/usr/local/bin/entrypoint.sh"
chroot "$WORK/merged" chown -R postgres:postgres /var/lib/postgresql
commit entrypoint
write_image '{"Env":["PATH=/usr/local/bin:/usr/lib/postgresql/15/bin:/usr/bin:/bin","PGDATA=/var/lib/postgresql/data"],"Entrypoint":["entrypoint.sh"],"WorkingDir":"/"}'
