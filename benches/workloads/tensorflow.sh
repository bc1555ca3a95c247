#!/usr/bin/env bash
# about: TensorFlow for the CPU: a layer of hundreds of MB, of which an import and a product of matrices need a part
# ready: Hello World with TensorFlow!
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step python
debian_packages python3 ca-certificates
commit python

step wheels
in_image_pip tensorflow-cpu==2.18.0
commit wheels

step program
mkdir "$WORK/merged/app"
cat >"$WORK/merged/app/main.py" <<'PYTHON'
"""One product of matrices; then stays until told to go."""
import os
import signal
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
import tensorflow

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
product = tensorflow.matmul(tensorflow.ones((300, 200)), tensorflow.ones((200, 100)))
assert float(tensorflow.reduce_sum(product)) == 300 * 200 * 100
print("Hello World with TensorFlow!", flush=True)
signal.pause()
PYTHON
commit program
write_image '{"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["python3","/app/main.py"],"WorkingDir":"/app"}'
