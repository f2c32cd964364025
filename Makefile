# Everything runs in a virtual environment of its own; `make demo` on a fresh machine is all the set-up there is.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The address of PyTorch's index of CPU builds, where the multi-gigabyte CUDA build is not wanted.
TORCH_INDEX ?=
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROTOS := $(wildcard protos/ssp/v1/*.proto)

.PHONY: demo serve test test-all check proto bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/installed
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

serve: $(VENV)/installed
	$(BIN)/ssp-server serve

test: $(VENV)/installed-dev
	$(BIN)/pytest

test-all: $(VENV)/installed-dev
	$(BIN)/pytest -m ""

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python protos/generate.py --check

proto: $(VENV)/installed-dev
	$(BIN)/python protos/generate.py

bench: $(VENV)/installed-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" bash benchmarks/run.sh

clean:
	rm -rf $(VENV) build dist runs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/torch: constraints.txt | $(VENV)/bin/python
	$(PIP_INSTALL) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/installed: pyproject.toml $(VENV)/torch
	$(PIP_INSTALL) -e '.[server,bench]'
	touch $@

$(VENV)/installed-dev: pyproject.toml $(VENV)/torch
	$(PIP_INSTALL) -e '.[dev]'
	touch $@ $(VENV)/installed
