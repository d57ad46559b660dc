# Two commands: `make book` and `make test`. Each sets up what it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help book test check live lab clean

PYTHON ?= python3
VENV ?= .venv
export VENV
BIN := $(VENV)/bin
BUILD := $(BIN)/jupyter-book build . -W --keep-going -n

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

book: ## execute the chapters that changed and build _build/html/index.html
	$(PYTHON) book/_ext/setup_env.py book
	PATH="$(abspath $(BIN)):$$PATH" $(BUILD)

test: ## everything: lint, unit tests, a cold build, the built site in Chromium
	$(PYTHON) book/_ext/setup_env.py book test
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/run.py all

check: ## under a minute: lint, unit tests, house rules
	$(PYTHON) book/_ext/setup_env.py book test
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tests/run.py check

live: ## rebuild on every change and show the book in the browser
	$(PYTHON) book/_ext/setup_env.py book
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python book/_ext/live.py

lab: ## JupyterLab, where the chapters open as notebooks
	$(PYTHON) book/_ext/setup_env.py lab
	$(BIN)/python book/_ext/lab.py

clean: ## remove everything built; data and the virtual environment stay
	rm -rf _build .pytest_cache .ruff_cache .hypothesis .coverage*
