# `make demo` and `make test` need Python 3.11 or later, pip and make; everything else they set up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
STYLE ?= starry-night

.PHONY: demo test lint clean

demo: $(VENV)/.run
	$(BIN)/stylize-run $(STYLE) demo out.mp4

test: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pytest

lint: $(VENV)/.dev
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# Each stamp is renewed when what it was made from changes, so a second call reuses the set-up.
$(VENV)/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("Python 3.11 or later is needed, %s is %d.%d" % (sys.executable, *v))'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[cpu,openvino]'
	touch $@

$(VENV)/.dev: $(VENV)/.run
	$(PIP) --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info out.mp4
