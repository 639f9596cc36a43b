# make demo   install and run the demo          make test    run the tests
# make check  lint, formatting and types        make clean   remove the environment
# With another interpreter: make demo PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: demo setup test check clean
demo: $(VENV)/installed
	$(BIN)/vidreason demo

setup: $(VENV)/installed-dev

test: $(VENV)/installed-dev
	$(BIN)/pytest

check: $(VENV)/installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

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
