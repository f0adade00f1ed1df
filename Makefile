# make help lists the targets.

ifeq ($(OS),Windows_NT)
$(error scratchgrid runs on Linux and macOS; on Windows, run make inside WSL)
endif

PYTHON ?= python3
PORT ?= 5000
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest -n auto

.DEFAULT_GOAL := help
.PHONY: help run test test-all peers cover fuzz torture mutants rates lint format docs baselines bench scale draw ui server lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## install, then train one network; ARGS="model=relu2 lr=0.1" chooses another
	@$(BIN)/python -m src.run $(if $(ARGS),$(ARGS),model=sigmoid3)

test: $(VENV)/.dev ## install, then run the tests that are not slow; ARGS="-k layers" chooses some
	@$(PYTEST) --dist loadfile -m "not slow" $(ARGS)

test-all: $(VENV)/.dev ## run all tests; ARGS=--long adds those that take minutes each
	@$(PYTEST) --dist worksteal $(ARGS)

peers: $(VENV)/.dev ## install PyTorch too: the tests that compare with it are skipped without it
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --editable ".[peers]"

cover: $(VENV)/.dev ## run the tests and show which lines and branches they reach
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report

fuzz: $(VENV)/.dev ## feed damaged files to the readers; ARGS="npz --runs 1000000"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --editable ".[fuzz]"
	@$(BIN)/python -m tests.fuzz $(if $(ARGS),$(ARGS),npz)

torture: $(VENV)/.dev ## kill, starve and damage runs, and compare what is resumed; ARGS="--minutes 30"
	@$(BIN)/python -m tests.torture $(ARGS)

mutants: $(VENV)/.dev ## count how many small faults the tests find; ARGS="--sample 0 nn/losses.py"
	@$(BIN)/python -m tests.mutation $(ARGS)

rates: $(VENV)/.dev ## simulate sweeps: how often a comparison is wrong; ARGS="--sweeps 500"
	@$(BIN)/python -m tests.rates $(ARGS)

lint: $(VENV)/.dev ## run Ruff and the strict type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## let Ruff format the code and fix what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

docs: $(VENV)/.dev ## write docs/reference.md from the YAML files and the classes
	@$(BIN)/python -m docs.generate

baselines: $(VENV)/.run ## compare every published recipe with ours on MNIST; ARGS="data.path=FOLDER"
	@$(BIN)/python -m src.baselines $(ARGS)

bench: $(VENV)/.run ## time a training pass, also of PyTorch and JAX if installed; ARGS="--rounds 3 --only 64"
	@$(BIN)/python -m tests.benchmarks $(ARGS)

scale: $(VENV)/.dev ## simulate sweeps on 10 to 10,000 workers; ARGS="writers" has 64 processes log at once
	@$(BIN)/python -m tests.scale $(if $(ARGS),$(ARGS),simulate)

draw: $(VENV)/.run ## draw the pictures of the documentation from the code
	@$(BIN)/python -m docs.draw

ui: $(VENV)/.run ## open MLflow's UI for the runs under outputs on http://127.0.0.1:PORT
	@$(BIN)/python -m src.ui --port $(PORT)

server: $(VENV)/.server ## start an MLflow server with PostgreSQL for a team; ARGS="--host 0.0.0.0" with passwords
	@$(BIN)/python -m src.server --port $(PORT) $(ARGS)

lock: $(VENV)/.dev ## resolve the dependencies anew and write locks/, with hashes
	@$(BIN)/python locks/resolve.py

clean: ## remove what was installed; keep outputs
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

# Each stamp records an installation. It is repeated only after a lock file has changed.

$(VENV)/.build: locks/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}; choose with make PYTHON=python3.12")'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r locks/build.txt
	@touch $@

$(VENV)/.run: $(VENV)/.build locks/run.txt pyproject.toml
	@echo "installing what a run needs into $(VENV); this takes about a minute, once"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --require-hashes -r locks/run.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run locks/dev.txt
	@echo "installing what the tests need into $(VENV); this takes about half a minute, once"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --require-hashes -r locks/dev.txt
	@touch $@

$(VENV)/.server: $(VENV)/.run
	@echo "installing what a server needs into $(VENV), once"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --editable ".[server]"
	@touch $@
