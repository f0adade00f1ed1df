# make help lists what can be asked for.

PYTHON ?= python3
PORT ?= 5000
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test peers cover mutants lint format baselines bench draw ui lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(VENV)/.run ## install, then train one network; ARGS="model=relu2 lr=0.1" chooses another
	@$(BIN)/python -m src.run $(if $(ARGS),$(ARGS),model=sigmoid3)

test: $(VENV)/.dev ## install, then pass the tests; ARGS="-k layers" chooses some
	@$(BIN)/python -m pytest $(ARGS)

peers: $(VENV)/.dev ## install PyTorch beside it: some tests compare with it, and are skipped without
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --editable ".[peers]"

cover: $(VENV)/.dev ## the tests, with the share of lines and branches that they reach
	@$(BIN)/coverage run -m pytest $(ARGS)
	@$(BIN)/coverage report

mutants: $(VENV)/.dev ## the share of small faults in the mathematics that a test finds; ARGS="--sample 0 nn/losses.py"
	@$(BIN)/python -m tests.mutation $(ARGS)

lint: $(VENV)/.dev ## Ruff and the strict type checker
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.dev ## let Ruff format and mend what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

baselines: $(VENV)/.run ## every published recipe on MNIST over three seeds, with verdicts; ARGS="data.path=FOLDER"
	@$(BIN)/python -m src.baselines $(ARGS)

bench: $(VENV)/.run ## a training pass beside PyTorch, scikit-learn and JAX where installed; ARGS="--rounds 3 --only 64"
	@$(BIN)/python -m tests.benchmarks $(ARGS)

draw: $(VENV)/.run ## the pictures of the documentation that follow from the code
	@$(BIN)/python -m docs.draw

ui: $(VENV)/.run ## MLflow's UI on http://127.0.0.1:PORT for the runs under outputs
	@$(BIN)/python -m src.ui --port $(PORT)

lock: $(VENV)/.dev ## resolve the dependencies anew into locks/, with hashes
	@$(BIN)/python locks/resolve.py

clean: ## remove what was installed; outputs stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage

# A stamp in the environment for what was installed last: nothing is done again until a lock file changes.

$(VENV)/.build: locks/build.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Python 3.11 or newer is needed, $(PYTHON) is {sys.version.split()[0]}; choose with make PYTHON=python3.12")'
	@echo "installing into $(VENV), once; this takes a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --require-hashes -r locks/build.txt
	@touch $@

$(VENV)/.run: $(VENV)/.build locks/run.txt pyproject.toml
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --require-hashes -r locks/run.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run locks/dev.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --require-hashes -r locks/dev.txt
	@touch $@
