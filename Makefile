# `make demo` and `make test` need Python 3.11 or later, pip and make; everything else they set up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
STYLE ?= starry-night

.PHONY: demo test lint kernels clean

demo: $(VENV)/.run
	$(BIN)/stylize-run $(STYLE) demo out.mp4

test: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal

lint: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# What the driver compiles for the GPU it finds: needs nvcc, once per change of the kernels. Instructions of sm_75 in the
# dialect of CUDA 11, which every driver since 450 reads; the hint it lacks there is left out.
kernels:
	nvcc -std=c++17 -O3 -ptx -arch=compute_75 -o build.ptx runtime/kernels.cu
	{ echo "// kernels $$(cat runtime/*.h runtime/*.cu | sha256sum | cut -d' ' -f1)"; sed -E \
	    -e 's/^\.version .*/.version 7.0/' -e '/used_bytes_mask/d' -e '/^\/\//d' -e 's/^[ \t]+//' -e '/^$$/d' build.ptx; \
	} > runtime/kernels.ptx
	rm build.ptx

# Each stamp is renewed when what it was made from changes, so a second call reuses the set-up.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python 3.11 or later is needed, %s is %d.%d" % (sys.executable, *v))'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu,openvino,steady]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info out.mp4
