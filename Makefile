# Every target but help and clean starts with setup, which does nothing when nothing changed.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# Three tests at a time, for two cores: many wait for a process or a server. Neighbours stay together, and
# share what their file makes once.
SIDE_BY_SIDE := -n 3 --dist worksteal
NEXT   := hydra-core==1.4.0rc3 omegaconf==2.4.1rc1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-all test-slurm test-dask test-faults check format check-next bench bench-sweep bench-store bench-peers bench-scale server experiments records screenshots wheel lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /|/' | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## create .venv, install the pinned dependencies, prepare the tracking store
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("digitlab needs Python 3.11 to 3.13, found " + sys.version.split()[0] + "; choose one with: make setup PYTHON=python3.12")'
	@echo "installing into $(VENV): a minute or two, 6 GB with the GPU libraries of torch"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8'
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m digitlab.tracking.connection.sqlite_store
	@touch $@

run: setup ## train both models on the embedded digits, record them, show the table
	@sh experiments/quickstart/run.sh

test: setup ## run the test suite, offline
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-all: setup ## the same with long trainings, every kill and emulated processors: 40 minutes
	DIGITLAB_SLOW=1 $(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-slurm: setup ## sweeps on a real SLURM of two nodes, set up from nothing; all that breaks (root; 10 minutes)
	@$(BIN)/python -c 'import sys; from tests.slurm.cluster import missing; sys.exit(missing())'
	DIGITLAB_SLOW=1 $(BIN)/python -m pytest tests/slurm tests/sweep/test_executors.py -k slurm

test-dask: setup ## sweeps on Dask: workers, scheduler and controller die, two hosts lose their link (4 min)
	DIGITLAB_SLOW=1 $(BIN)/python -m pytest tests/dask tests/sweep/test_executors.py -k dask

test-faults: setup ## inject every fault of tests/faults/table.py and say what was lost: half an hour
	DIGITLAB_SLOW=faults $(BIN)/python -m pytest $(SIDE_BY_SIDE) -p tests.faults.report -m fault

check: setup ## format, lint, types, order of imports: what must be clean before a commit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

format: setup ## apply the formatter and the safe lint fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure speed against the tutorial's loop on MNIST: ratios, side by side
	$(BIN)/python -m tests.benchmarks

bench-sweep: setup ## measure sweeps against stock Hydra: ratios, side by side
	$(BIN)/python -m tests.benchmarks.sweeps

bench-store: setup ## measure recording: 1,000 runs by 8 writers into SQLite and a team's server (10 min)
	$(BIN)/python -m tests.benchmarks.store

bench-peers: setup ## measure against Optuna, Ray Tune, Hydra, scikit-learn with MLflow (an hour; needs MNIST)
	$(BIN)/python -m tests.benchmarks.peers $(PEERS)

bench-scale: setup ## measure 100, 1,000 and 10,000 recorded runs and life with them (20 min; SCALE="100 1000")
	$(BIN)/python -m tests.benchmarks.scale $(SCALE)

server: setup ## run a team's server: MLflow with PostgreSQL and passwords; docs/team-server.md
	@PYTHON=$(BIN)/python sh docs/team_server/start.sh

check-next: setup ## prove composing and a sweep on the next Hydra, a pre-release (needs a network)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --target $(VENV)/next $(NEXT)
	PYTHONPATH=$(VENV)/next $(BIN)/python -c 'import hydra; print("Hydra", hydra.__version__)'
	PYTHONPATH=$(VENV)/next $(BIN)/python -m pytest -W "ignore:The version_base" \
	  tests/config/test_composition.py tests/sweep/test_space.py \
	  tests/sweep/test_sweep.py::test_a_grid_leaves_one_parent_and_a_child_for_each_trial

experiments: setup ## train and write the quick experiments again: tutorial, budget (16 min; needs MNIST)
	$(BIN)/python -m experiments.tutorial.run
	$(BIN)/python -m experiments.budget.run

records: setup ## train all experiments anew, publish their records, portable ones too (an hour; needs MNIST)
	$(BIN)/python -m experiments.records

screenshots: run ## take the README's pictures of the MLflow UI (needs chromium)
	$(BIN)/python -m tests.ui.screenshots

wheel: setup ## build dist/digitlab-VERSION-py3-none-any.whl, which needs no checkout
	$(BIN)/python -m hatchling build -t wheel

lock: ## resolve requirements.lock again from pyproject.toml: versions and hashes, no addresses
	$(BIN)/uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --output-file requirements.lock

clean: ## remove .venv and caches; mlruns/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
