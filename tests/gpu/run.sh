#!/usr/bin/env bash
# Everything that needs a GPU, in one go: run it on a machine with one and send back what it writes.
#
#   tests/gpu/run.sh [FOLDER [PART ...]]   results as JSON, by default all parts, under benchmarks/results/gpu
#
#   PYTHON=python3       which Python; by default that of .venv, else python3
#   WHEELS=folder        *.whl to install beside what is there, pycuda-*.tar.gz to build: for a machine without a network
#   MINUTES=9            begin nothing, and let nothing run, past that; for machines that end commands themselves
#   LOSS_WEIGHTS=file    VGG weights for the training; random ones without, which are as fast
#   FAIL_WITHOUT_GPU=1   a part that cannot run is a failure
#   REHEARSE=1           on a CPU: what can be run there, small, to see that the script itself works
#
# Each part has a time limit of its own and none stops the others; a part that cannot run says why. Without a GPU
# every part is skipped and the script succeeds. Nothing is installed outside build/gpu-site.
set -uo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-.venv/bin/python}
command -v "$PYTHON" > /dev/null || PYTHON=python3
exec "$PYTHON" tests/gpu/run.py "$@"
