# install, test, test-slow, check. `make test PYTEST="-k recipe -x"` narrows a run.
PYTHON ?= python3
VENV ?= .venv
PYTEST ?=

# Two OpenMP threads beside another busy process are many times slower than one.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Tests never reach for the hub by accident.
export HF_HUB_OFFLINE ?= 1

STAMP := $(VENV)/.installed

.PHONY: install test test-slow check

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

test: install
	$(VENV)/bin/python -m pytest -m 'not slow and not gpu and not network' $(PYTEST)

test-slow: install
	$(VENV)/bin/python -m pytest -m 'slow and not gpu and not network' $(PYTEST)

check: install
	$(VENV)/bin/python -m ruff check
	$(VENV)/bin/python -m ruff format --check
	$(VENV)/bin/python -m mypy
