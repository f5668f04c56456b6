# make demo | test | lint | style | docs | bench | fuzz | faults | findings | gpu | clean. Each works alone on a fresh machine with Python 3.11 or newer and a C++
# compiler: the first run makes a virtual environment in .venv and installs the pinned versions into it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# More arguments for pytest, for instance: make test PYTEST_ARGS="-k spectral -x"
PYTEST_ARGS ?=
# Test processes, with one torch thread each so that they do not compete for the cores. 0 runs all tests in one process.
TEST_JOBS ?= 2
# More arguments for the benchmarks, for instance: make bench BENCH_ARGS="--quick"
BENCH_ARGS ?=
# More arguments for the two searches for faults.
FUZZ_ARGS ?=
FAULTS_ARGS ?=
# A commit, branch or tag to compare with: make style BASE=v0.1.0
BASE ?=
# More arguments for it, for instance: make style STYLE_ARGS="--list --depth 2"
STYLE_ARGS ?=
# Where make gpu runs: cuda, or cpu for a rehearsal at tiny sizes; and more arguments for it.
DEVICE ?= cuda
GPU_ARGS ?=
# The folder of links that shows the installed layout.
TREE := build/typecheck

.DEFAULT_GOAL := help
# Two pip processes must not write to one environment at a time, whatever -j says.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint ruff typecheck style findings docs bench fuzz faults gpu clean install install-demo typecheck-tree

help:
	@echo "make demo      install what the demonstration needs, and run it"
	@echo "make test      install everything, and run the tests"
	@echo "make lint      ruff (rules and format) and mypy"
	@echo "make style     lines, duplicates, long functions and files, docstrings (BASE=revision: before and after)"
	@echo "make docs       the documentation as a site in build/site, warnings as errors"
	@echo "make bench     time, memory and error beside other methods, as CSV and figures"
	@echo "make fuzz      20,000 spoiled files through every reader (FUZZ_ARGS='--seed 2 --only NIfTI')"
	@echo "make faults    100 kills of runs: nothing lost but the time since the last checkpoint (FAULTS_ARGS='--kills 20')"
	@echo "make findings  surprises of other packages, each in an environment of its own: which still hold"
	@echo "make gpu       on a GPU, in a few minutes: the engines' tests, benchmarks, where the host waits (DEVICE=cpu rehearses)"
	@echo "make clean     remove .venv, caches and build folders"
	@echo "PYTHON=...     the interpreter for .venv (default: python3)"

demo: install-demo
	@$(BIN)/ccnn demo

test: install
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(TEST_JOBS) $(PYTEST_ARGS)

lint: ruff typecheck

ruff: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

typecheck: install typecheck-tree
	MYPYPATH=build/typecheck $(BIN)/mypy -p ccnn_irregular

# The script needs nothing but Python: no installation.
style:
	$(PYTHON) tools/style.py $(if $(BASE),--base $(BASE)) $(STYLE_ARGS)

# Without a network: no fonts, and nothing else, is fetched.
docs: install
	$(BIN)/python tools/docs_tree.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Each script installs what it looks at into a temporary folder. See findings/README.md.
findings:
	@failed=0; for script in findings/*.sh; do \
		echo "== $$script"; bash "$$script" || { failed=1; echo "changed, or could not run: $$script" >&2; }; \
	done; exit $$failed

# FINUFFT is measured beside the engines and used by none of them.
bench: install
	$(PIP) install --quiet -c constraints.txt 'finufft==2.5.1' || echo "Warning: finufft could not be installed; its rows will say so" >&2
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

# Both make their inputs in temporary folders; docs/reliability.md tells what they found.
fuzz: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/fuzz.py $(FUZZ_ARGS)

faults: install
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/kills.py $(FAULTS_ARGS)

# Packages that $(PYTHON) has are used where they suffice: see benchmarks/gpu.sh.
gpu:
	PYTHON="$(PYTHON)" bash benchmarks/gpu.sh --device $(DEVICE) $(GPU_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/.installed-dev
install-demo: $(VENV)/.installed-demo

# A stamp is written last, so an interrupted installation starts again. Both stamps share the environment: the pins are
# the same, and the second installation only adds what the first left out. setuptools comes first and pip is told to
# build with it, because a separate build environment would not be pinned.
$(VENV)/.installed-demo: EXTRAS := train,files,plots
$(VENV)/.installed-dev: EXTRAS := dev
$(VENV)/.installed-demo $(VENV)/.installed-dev: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	@echo "installing ccnn_irregular[$(EXTRAS)] and what it needs into $(VENV): some minutes, once"
	@$(PIP) install --quiet -c constraints.txt setuptools
	@$(PIP) install --quiet --no-build-isolation -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

$(VENV)/pyvenv.cfg:
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found; name an interpreter: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ccnn_irregular needs Python 3.11 or newer, got %d.%d; name another: make PYTHON=/path/to/python3.11 ..." % sys.version_info[:2])'
	@command -v "$${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || echo "Warning: no C++ compiler found; KeOps needs one at run time, without it sums over pairs are slower" >&2
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Could not make $(VENV); on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# mypy names a module by its folder, and datasets/ and pipelines/ do not stand where they are installed. A folder of
# links shows it the installed layout; being made anew each time, it holds new files without another installation.
typecheck-tree:
	rm -rf $(TREE)
	mkdir -p $(TREE)/ccnn_irregular
	ln -s "$(CURDIR)"/ccnn_irregular/* "$(CURDIR)/datasets" "$(CURDIR)/pipelines" $(TREE)/ccnn_irregular/
