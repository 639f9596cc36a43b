# make demo      install and run the demo        make docs      build docs/_build/index.html
# make check     lint, formatting and types      make audit     check the pins for known vulnerabilities
# make test      run the tests, in minutes       make coverage  line and branch coverage of make test
# make test-all  run the tests that take long: kills, fuzzing, browser, documentation, ray
# make clean     remove the environment
# With another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo setup test test-all coverage check docs audit clean
demo: $(VENV)/installed
	$(BIN)/vidreason demo

setup: $(VENV)/installed-dev

test: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile

test-all: $(VENV)/installed-dev
	@$(PIP) -e '.[ray]'
	$(BIN)/pytest -n 2 --dist loadfile -m slow

# ALL=1 adds the tests of test-all.
coverage: $(VENV)/installed-dev
	$(BIN)/pytest -n 2 --dist loadfile --cov=vidreason --cov-branch --cov-report=term:skip-covered \
	  $(if $(ALL),-m "")

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/installed-dev
	$(BIN)/sphinx-build -W -q -b html docs docs/_build
	@echo docs/_build/index.html

audit: $(VENV)/installed
	@$(PIP) pip-audit
	$(BIN)/pip-audit -r constraints.txt --no-deps --disable-pip

clean:
	rm -rf $(VENV) docs/_build

# Stamps: a second call installs nothing unless a pin has changed.
$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit( \
	  f"error: python {sys.version.split()[0]}: vidreason needs 3.11 or later; " \
	  "name one, as in `make demo PYTHON=python3.12`")'
	@echo "Installing into $(VENV), which takes some minutes the first time"
	@$(PYTHON) -m venv $(VENV)
	@# torch first and alone: with its version fixed pip takes a CPU build where one is offered.
	@$(PIP) torch
	@$(PIP) -e .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) -e '.[dev]'
	@touch $@
