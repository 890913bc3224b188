# install, demo, test, test-slow, check. `make test PYTEST="-k recipe -x"` narrows a run.
PYTHON ?= python3
VENV ?= .venv
PYTEST ?=
DEMO ?=

STAMP := $(VENV)/.installed

.PHONY: install demo test test-slow check

install: $(STAMP)

$(STAMP): pyproject.toml models/pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]' -e ./models
	touch $@

# The main job on the shipped models and texts; `make demo DEMO="--minutes 4 --out elsewhere"` passes options on.
demo: install
	$(VENV)/bin/affinage demo $(DEMO)

# One process a core; two OpenMP threads beside another busy process are many times slower than one.
test test-slow: export OMP_NUM_THREADS ?= 1
test test-slow: export MKL_NUM_THREADS ?= 1
test test-slow: export TOKENIZERS_PARALLELISM ?= false
# Tests never reach for the hub by accident.
test test-slow: export HF_HUB_OFFLINE ?= 1

test: install
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m 'not slow and not gpu and not network' $(PYTEST)

test-slow: install
	$(VENV)/bin/python -m pytest -n auto --dist loadfile -m 'slow and not gpu and not network' $(PYTEST)

check: install
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/python -m mypy
