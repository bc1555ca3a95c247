#!/usr/bin/env bash
# about: the image of python; reads DENSITY percent of its bytes, whole files in ORDER random or tar, then is ready
# ready: density is ready
# needs: python
# env: DENSITY=100 ORDER=random
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
mkdir -p "$WORK/top/density"
static_busybox "$WORK/top/density/busybox"

# The files that a container sees of the layers below, each with the bytes up to its end: as they come in the layers'
# tars, and shuffled once and for all.
blobs=()
while read -r digest _; do blobs+=("$WORK/layout/blobs/sha256/$digest"); done < <(list_layers "$3")
python_files '
import posixpath, random, sys, tarfile

# Containers have files of their own there.
MOUNTED = {"etc/hostname", "etc/hosts", "etc/resolv.conf"}
top, blobs = sys.argv[1], sys.argv[2:]
files = {}
for blob in blobs:
    here, hidden, replaced = {}, set(), set()
    with tarfile.open(blob, "r|gz") as tar:
        for entry in tar:
            path = posixpath.normpath(entry.name)
            folder, name = posixpath.split(path)
            if name == ".wh..wh..opq":
                hidden.add(folder + "/")
            elif name.startswith(".wh."):
                gone = posixpath.join(folder, name[4:])
                replaced.add(gone)
                hidden.add(gone + "/")
            else:
                if not entry.isdir():
                    replaced.add(path)
                if entry.isreg() and not entry.islnk():
                    here[path] = entry.size
    def stays(path):
        parts = path.split("/")
        return path not in replaced and not any("/".join(parts[:n]) + "/" in hidden for n in range(1, len(parts)))
    files = {path: size for path, size in files.items() if stays(path)}
    files.update(here)
files = [(path, size) for path, size in files.items() if path not in MOUNTED]
assert len(files) > 1000 and not any("\n" in path for path, _ in files)

def write(order, files):
    end = 0
    with open(f"{top}/density/{order}", "w") as out:
        for path, size in files:
            end += size
            out.write(f"{end} /{path}\n")
    with open(f"{top}/density/total", "w") as out:
        out.write(f"{end}\n")

write("tar", files)
random.Random(20).shuffle(files)
write("random", files)
' "$WORK/top" "${blobs[@]}"

# Nothing but this layer runs: the reader must not cause reads of its own below.
cat >"$WORK/top/density/run" <<TEXT
want=\$((\$(cat /density/total) * DENSITY / 100))
awk -v "want=\$want" '{ if (before >= want) exit; before = \$1; sub(/^[0-9]+ /, ""); print }' "/density/\$ORDER" |
    tr '\n' '\0' | xargs -0 -n 500 /density/busybox cat >/dev/null || exit 1
echo "density is ready: \$DENSITY % in \$ORDER order, \$want bytes"
$STAY
TEXT
for applet in sh cat awk tr xargs sleep; do ln -s busybox "$WORK/top/density/$applet"; done
add_layer "$WORK/top"
write_image '{"Env":["PATH=/density","DENSITY=100","ORDER=random"],"Cmd":["/density/busybox","sh","/density/run"]}'
