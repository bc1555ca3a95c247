#!/usr/bin/env bash
# about: 32 layers of 11 to 12.5 MB (compressed) of Debian's files; one file of each is read
# ready: layers32 is ready
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly COUNT=32 LEAST=11000000 MOST=12500000

workload_begin "$@"
debian_files "$WORK/pool" \
    cpp-12 gcc-12 g++-12 gdb gfortran-12 git vim-runtime vim libpython3.11-minimal libpython3.11-stdlib perl-modules-5.36 libperl5.36 \
    libboost1.74-dev libicu72 libc6 locales qtbase5-dev libqt5gui5 libgtk-3-0 libgtk-3-common cmake cmake-data rustc erlang-base emacs-common emacs-el \
    python3-numpy python3-scipy python3-pandas-lib python3-matplotlib python3-sympy python3-django python3-botocore \
    golang-1.19-src libstdc++-12-dev docker.io tzdata \
    ruby3.1 libruby3.1 php8.2-cli postgresql-15 mariadb-server-core nodejs libnode108 inkscape gimp-data libreoffice-common
# The first layer has the program, too.
static_busybox "$WORK/dealt/00/reader/busybox"
ln -s busybox "$WORK/dealt/00/reader/sleep"
python_files '
import os, sys, zlib

# Deals the files out, in the order of their names, so that each layer compresses to about its size; what would be too
# much for the layer at hand waits for the next one.
pool, out, count, least, most = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
aim = (least + most) // 2
# pigz compresses in pieces, and so a little less.
limit = most - 300000
names = []
for folder, folders, files in os.walk(pool):
    folders.sort()
    names += [os.path.join(folder, name) for name in sorted(files)]
names = [name for name in names if not os.path.islink(name)]
waiting, sizes = [], {}
todo = iter(names)
for layer in range(count):
    stream, size, taken, later = zlib.compressobj(6), 0, [], []
    if layer == 0:
        with open(os.path.join(out, "00", "reader", "busybox"), "rb") as file:
            size = len(zlib.compress(file.read(), 6))
    while size < aim:
        name = waiting.pop(0) if waiting else next(todo, None)
        if name is None:
            sys.exit(f"not enough files for {count} layers: only {layer}")
        with open(name, "rb") as file:
            content = file.read()
        sizes[name] = len(content)
        alone = len(content) if len(content) < 65536 else len(zlib.compress(content, 6))
        if size + alone > limit:
            if alone < aim:
                later.append(name)
            continue
        size += len(stream.compress(bytes(512) + content + bytes(-len(content) % 512)))
        taken.append(name)
    waiting = later + waiting
    for name in taken:
        target = os.path.join(out, f"{layer:02}", "layers", f"{layer:02}", os.path.relpath(name, pool))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(name, target)
    # The file that is read: the one whose size is nearest to 100 kB.
    read = min(taken, key=lambda name: (abs(sizes[name] - 100000), name))
    with open(os.path.join(out, "read"), "a") as file:
        file.write("/" + os.path.join("layers", f"{layer:02}", os.path.relpath(read, pool)) + "\n")
' "$WORK/pool" "$WORK/dealt" "$COUNT" "$LEAST" "$MOST"
rm -rf "$WORK/pool"

mv "$WORK/dealt/read" "$WORK/dealt/00/reader/files"
cat >"$WORK/dealt/00/reader/run" <<TEXT
bytes=0
while read -r file; do
    size=\$(/reader/busybox wc -c <"\$file") || exit 1
    bytes=\$((bytes + size))
done </reader/files
echo "layers32 is ready: \$bytes bytes"
$STAY
TEXT
for layer in "$WORK"/dealt/??; do
    add_layer "$layer"
    if [ "$LAYER_BYTES" -lt "$LEAST" ] || [ "$LAYER_BYTES" -gt "$MOST" ]; then
        echo "a layer has $LAYER_BYTES bytes: not between $LEAST and $MOST" >&2
        exit 1
    fi
done
[ ${#LAYERS[@]} = "$COUNT" ]
write_image '{"Env":["PATH=/reader"],"Cmd":["/reader/busybox","sh","/reader/run"]}'
