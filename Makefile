# Two commands do all on a fresh machine with Python 3.11 or later, its venv module, and make:
#   make demo    the main job on real processes, sockets, disks and records
#   make test    every test of the ordinary run
# Each sets up its own virtual environment in .venv; nothing else is touched.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2
DEMO   ?=

.PHONY: demo test docs lint types clean

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or later is needed; say which with PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[speed]'
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/p2pmed demo $(DEMO)

test: $(VENV)/.tested
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal -m "not slow"

docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/sphinx-build -W -q -b html docs docs/_build/html

lint: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group types
	$(BIN)/mypy p2pmed

clean:
	rm -rf $(VENV) .tox docs/_build
