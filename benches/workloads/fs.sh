#!/usr/bin/env bash
# about: what bench-fs runs in and on: fio, a compiler, Python; one big file, a tree of 20,000, a small C project
# ready: fs is ready
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step tools
debian_packages fio gcc libc6-dev make python3 findutils coreutils tar
commit tools

# 256 MiB of which about half can be compressed away: by turns what is random and what isn't.
mkdir -p "$WORK/big/data"
python_files '
import random, sys

PIECE, PIECES = 1 << 16, 4096
random = random.Random(256)
with open(sys.argv[1], "wb") as out:
    for piece in range(PIECES):
        noise = random.randbytes(PIECE // 2)
        words = b"".join(b"%08x %04d\n" % (piece * 4096 + n, n) for n in range(PIECE // 2 // 14 + 1))
        out.write(noise + words[: PIECE // 2])
' "$WORK/big/data/big"
add_layer "$WORK/big"

# Sizes evenly spread over their orders of magnitude, from nothing to 64 KiB.
mkdir -p "$WORK/tree/data/tree" "$WORK/tree/src"
python_files '
import os, random, sys

FILES, PER_FOLDER, LARGEST_BITS = 20000, 40, 16
random = random.Random(20000)
text = " ".join("%x" % random.randrange(1 << random.randrange(4, 40)) for _ in range(200000)).encode()
noise = random.randbytes(1 << LARGEST_BITS)
for file in range(FILES):
    folder = f"{sys.argv[1]}/{file // PER_FOLDER // 25:02}/{file // PER_FOLDER:03}"
    os.makedirs(folder, exist_ok=True)
    size = int(2 ** random.uniform(0, LARGEST_BITS)) - 1
    source = noise if file % 8 == 0 else text
    start = random.randrange(len(source) - size + 1)
    with open(f"{folder}/{file:05}" + (".bin" if file % 8 == 0 else ".txt"), "wb") as out:
        out.write(source[start : start + size])
' "$WORK/tree/data/tree"
# A program of 40 parts, each with a header of its own, all including what C programs include.
# shellcheck disable=SC2016 # make's variables
python_files '
import os, sys

PARTS, FUNCTIONS = 40, 30
os.makedirs(f"{sys.argv[1]}/include")
for part in range(PARTS):
    with open(f"{sys.argv[1]}/include/part{part:02}.h", "w") as out:
        out.write(f"#ifndef PART{part:02}_H\n#define PART{part:02}_H\nlong part{part:02}(long value);\n#endif\n")
    with open(f"{sys.argv[1]}/part{part:02}.c", "w") as out:
        out.write("#include <errno.h>\n#include <math.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <sys/stat.h>\n#include <unistd.h>\n")
        out.write(f"#include \"include/part{part:02}.h\"\n#include \"include/part{(part + 1) % PARTS:02}.h\"\n\n")
        for function in range(FUNCTIONS):
            out.write(
                f"static long step{function}(long value)\n{{\n    char text[64];\n    long sum = 0;\n"
                f"    for (long n = 0; n < value % {function + 7}; n++)\n        sum += n * {part + 1} ^ value;\n"
                f"    snprintf(text, sizeof text, \"%ld\", sum);\n    return sum + (long)strlen(text);\n}}\n\n"
            )
        calls = " + ".join(f"step{function}(value)" for function in range(FUNCTIONS))
        out.write(f"long part{part:02}(long value)\n{{\n    return {calls};\n}}\n")
with open(f"{sys.argv[1]}/main.c", "w") as out:
    out.write("#include <stdio.h>\n" + "".join(f"#include \"include/part{part:02}.h\"\n" for part in range(PARTS)))
    calls = " ^ ".join(f"part{part:02}(arguments)" for part in range(PARTS))
    out.write(f"\nint main(int arguments, char **values)\n{{\n    (void)values;\n    printf(\"%ld\\n\", {calls});\n    return 0;\n}}\n")
with open(f"{sys.argv[1]}/Makefile", "w") as out:
    out.write(
        "# make OUT=FOLDER: builds there, so that the sources can be read-only.\n"
        "OUT ?= build\nCFLAGS = -O1 -Wall -Werror\nOBJECTS = $(patsubst %.c,$(OUT)/%.o,$(wildcard *.c))\n\n"
        "$(OUT)/program: $(OBJECTS)\n\t$(CC) -o $@ $^\n\n"
        "$(OUT)/%.o: %.c $(wildcard include/*.h)\n\t@mkdir -p $(OUT)\n\t$(CC) $(CFLAGS) -c -o $@ $<\n\n"
        "clean:\n\trm -rf $(OUT)\n\n.PHONY: clean\n"
    )
' "$WORK/tree/src"
add_layer "$WORK/tree"
write_image "{\"Env\":[\"PATH=/usr/local/bin:/usr/bin:/bin\"],\"Cmd\":[\"sh\",\"-c\",\"echo fs is ready; ${STAY//\"/\\\"}\"]}"
