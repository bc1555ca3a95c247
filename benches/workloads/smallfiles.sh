#!/usr/bin/env bash
# about: 200,000 files of 100 B to 4 KiB in 2,000 folders, all of them stat'ed and read: what each file costs
# ready: smallfiles is ready
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
static_busybox "$WORK/reader/bin/busybox"
ln -s busybox "$WORK/reader/bin/sleep"
mkdir -p "$WORK"/reader/{dev,etc,proc,sys,tmp}
chmod 1777 "$WORK/reader/tmp"
cat >"$WORK/reader/bin/read-all" <<TEXT
cd /files && busybox find . -type f -size +0 -print0 | busybox xargs -0 -n 500 /bin/busybox cat | busybox wc -c >/tmp/read || exit 1
echo "smallfiles is ready: \$(busybox cat /tmp/read) bytes"
$STAY
TEXT
add_layer "$WORK/reader"

# Slices of one made-up text, from places that a fixed seed chooses: alike as sources are, no two the same.
python_files '
import itertools, os, random, sys

FOLDERS, PER_FOLDER, LAYERS = 2000, 100, 2
random = random.Random(200000)
letters = "etaoinshrdlucmfwypvbgkqjxz"
weights = [1 / (n + 1) for n in range(len(letters))]
words = ["".join(random.choices(letters, weights, k=random.randint(2, 10))) for _ in range(5000)]
often = list(itertools.accumulate(1 / (n + 1) for n in range(len(words))))
text = []
for _ in range(100000):
    text.append(" ".join(random.choices(words, cum_weights=often, k=random.randint(4, 14))) + "\n")
text = "".join(text).encode()
for folder in range(FOLDERS):
    path = f"{sys.argv[1]}/files{folder * LAYERS // FOLDERS}/files/{folder // 50:02}/{folder:04}"
    os.makedirs(path)
    for file in range(PER_FOLDER):
        size = random.randint(100, 4096)
        start = random.randrange(len(text) - size)
        with open(f"{path}/{file:02}.txt", "wb") as out:
            out.write(text[start : start + size])
' "$WORK"
for n in 0 1; do
    add_layer "$WORK/files$n"
    rm -rf "$WORK/files$n"
done
write_image '{"Env":["PATH=/bin"],"Cmd":["/bin/busybox","sh","/bin/read-all"]}'
