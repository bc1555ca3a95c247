#!/usr/bin/env bash
# about: Python imports numpy, pandas and scipy and computes a little
# ready: python is ready
# needs: debian
set -Eeuo pipefail
# shellcheck source=benches/workloads/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

workload_begin "$@"
step python
debian_packages python3 ca-certificates
commit python

step wheels
in_image_pip numpy==2.2.6 pandas==2.2.3 scipy==1.15.3
commit wheels

step program
mkdir "$WORK/merged/app"
cat >"$WORK/merged/app/main.py" <<'PYTHON'
"""Fits a line through noisy points, by way of all three libraries; then stays until told to go."""
import signal
import sys

import numpy
import pandas
import scipy.optimize
import scipy.stats

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
random = numpy.random.default_rng(1)
frame = pandas.DataFrame({"x": numpy.arange(1000.0)})
frame["y"] = 3 * frame["x"] + 7 + random.normal(size=1000)
(slope, offset), _ = scipy.optimize.curve_fit(lambda x, a, b: a * x + b, frame["x"], frame["y"])
correlation = scipy.stats.pearsonr(frame["x"], frame["y"]).statistic
print(f"python is ready: slope {slope:.2f}, offset {offset:.1f}, correlation {correlation:.3f}", flush=True)
signal.pause()
PYTHON
commit program
write_image '{"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"Cmd":["python3","/app/main.py"],"WorkingDir":"/app"}'
