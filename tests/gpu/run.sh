#!/usr/bin/env bash
# Everything that needs a GPU, in one go: run it on a machine with one and send back what it writes.
#
#   tests/gpu/run.sh [FOLDER]      results as JSON, by default under benchmarks/results/gpu
#
# Each part has a time limit of its own and none stops the others; a part that cannot run says why. Without a GPU
# every part is skipped and the script succeeds; FAIL_WITHOUT_GPU=1 makes that a failure.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
[ -x "$PYTHON" ] || PYTHON=python3
exec "$PYTHON" tests/gpu/run.py "$@"
