# One word per thing to do; CI runs exactly these.

VENV := .venv
PY := $(VENV)/bin/python
SOURCES := $(shell find flyte_manager -name '*.py')
CHECKED := $(wildcard flyte_manager tests bench demo)
PREFIX ?= $(HOME)/.local

# Modules are compiled at build; a shell that forbids it would make each start slow.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help build run demo test soak test-kubernetes check docs bench bench-kubernetes clean install lock

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: bin/flyte-manager $(VENV)/.compiled ## make bin/flyte-manager, with all that it needs, in .venv

run: build ## start the manager with config.yaml
	@exec ./bin/flyte-manager --config config.yaml

demo: build ## start a manager on free ports, run an example through the SDK, show its timeline, stop
	@exec $(PY) -m demo

test: build ## run all tests that need no cluster
	@exec $(PY) -m pytest -m "not bench and not kubernetes" --numprocesses auto --maxprocesses 4 --dist loadfile

soak: build ## play 50,000 histories of the simulation, run 10,000 children: takes half an hour
	@$(PY) -m tests.chaos.simulated --seeds 50000
	@exec $(PY) -m bench.many

# The first time builds Kubernetes, which takes minutes: here, where it can be seen, and not within a test.
test-kubernetes: build ## run the tests on Kubernetes: the cluster of KUBECONFIG, else a real one that they start
	@[ -n "$$KUBECONFIG" ] || $(PY) -m tests.cluster build
	@exec $(PY) -m pytest tests/kubernetes -m kubernetes

check: build ## formatting, lint, types, import contract, documentation
	$(VENV)/bin/ruff format --check $(CHECKED)
	$(VENV)/bin/ruff check $(CHECKED)
	$(VENV)/bin/mypy $(CHECKED)
	$(VENV)/bin/lint-imports --no-logo
	$(PY) -m pytest -q tests/unit/test_docs.py

docs: build ## write the generated tables of docs/ anew
	@$(PY) -m tests.rpcs
	@$(PY) -m tests.decisions

bench: build ## measure, print the table, write it to docs/; AGAINST=commit compares with it, in turns
	@exec $(PY) -m bench $(if $(AGAINST),--against $(AGAINST))

bench-kubernetes: build ## the same with pods, on clusters that it starts: takes 15 minutes
	@$(PY) -m tests.cluster build --kwok
	@exec $(PY) -m bench --kubernetes

clean: ## remove what build made; data and databases stay
	rm -rf $(VENV) bin build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .pytest_cache .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

install: build ## put the command flyte-manager into ~/.local/bin (PREFIX=~/.local)
	@mkdir -p "$(PREFIX)/bin"
	@ln -sf "$(CURDIR)/bin/flyte-manager" "$(PREFIX)/bin/flyte-manager"
	@echo "installed $(PREFIX)/bin/flyte-manager, which runs from $(CURDIR)"

lock: ## pin all dependencies anew in constraints.txt (needs uv)
	@echo "# All dependencies, development included, for Python 3.11 to 3.13. Made by: make lock" > constraints.new
	@uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --upgrade \
	  --no-annotate --no-header --quiet >> constraints.new
	@mv constraints.new constraints.txt

bin/flyte-manager: $(VENV)/.installed
	@mkdir -p bin
	@printf '#!/bin/sh\nexec "%s/$(VENV)/bin/flyte-manager" "$$@"\n' "$(CURDIR)" > $@
	@chmod +x $@

$(VENV)/.compiled: $(VENV)/.installed $(SOURCES)
	@$(PY) -m compileall -q flyte_manager
	@touch $@

# An environment holds the path at which it was made: in a folder that was moved or copied it is made anew.
MOVED := $(shell [ ! -f bin/flyte-manager ] || grep -qF '"$(CURDIR)/$(VENV)/' bin/flyte-manager || echo moved)
ifdef MOVED
.PHONY: $(VENV)/.installed
endif

# A candidate is asked for its version, because a command of that name may exist and not work.
$(VENV)/.installed: pyproject.toml constraints.txt
	@set -e; for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	  if $$python -c 'import sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "$(or $(PYTHON),python3) is no Python 3.11, 3.12 or 3.13: install one, or name it: make build PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Building with $$($$found -V): fetching and installing the dependencies; the first time takes about a minute."; \
	$$found -m venv --clear $(VENV)
	@$(PY) -m pip install --disable-pip-version-check -q --require-hashes -r constraints.txt
	@$(PY) -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	@$(PY) -m compileall -q $(VENV)/lib/python3.*/site-packages > /dev/null || true
	@touch $@
