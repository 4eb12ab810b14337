# make demo: the main job on the bundled models and images.  make test: all tests.  make bench: all benchmarks, about
# 45 minutes on 2 cores.  All set up .venv first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: demo test bench lint setup clean
.DEFAULT_GOAL := demo

setup: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "transmiter needs Python 3.11 or newer: make PYTHON=/path/to/python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/transmiter demo

test: setup
	$(BIN)/python -m pytest

# QUICK=--quick for smaller sizes; SUBJECTS="fit transfer" for some of it.
bench: setup
	$(BIN)/python -m benchmarks.run $(SUBJECTS) $(QUICK)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

clean:
	rm -rf .venv transmiter-run transmiter-demo
