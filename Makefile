# `make` alone lists what there is. Everything runs in one virtual environment, .venv, which the first target that needs
# it sets up; setup_env.py does that work, also for people without make.

.DEFAULT_GOAL := help
.PHONY: help lab test soak mutants count build lint bench clean

READY := .venv/.ready
TWO_AT_A_TIME := --numprocesses=2 --dist=loadscope --no-loadscope-reorder
SOAKED := tests/test_exercises.py $(shell grep -l "import given" tests/test_*.py)
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3.10 python3 python)
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))

# The stamp holds the folder it was made in: a virtual environment does not survive being moved or copied.
ifneq ($(shell cat $(READY) 2>/dev/null),$(CURDIR))
.PHONY: $(READY)
endif

help:  ## list these targets
	@echo "make TARGET [ARGS=\"...\"] [PYTHON=...]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	  printf '  %-8s %s\n' $$name "$$text"; done

lab: $(READY)  ## open JupyterLab on the first lesson (ARGS go to JupyterLab: ARGS="--no-browser --port=8899")
	@echo "lab: starting JupyterLab on the first lesson; Ctrl-C stops it"
	@.venv/bin/course lab $(ARGS)

test: $(READY)  ## run all tests (ARGS go to pytest: ARGS="tests/test_launch.py -x")
	@echo "test: running the tests"
	@.venv/bin/python -m pytest $(or $(ARGS),$(TWO_AT_A_TIME))

soak: $(READY)  ## what takes longer: more seeds for the exercises, more examples for hypothesis
	@echo "soak: exercises and properties again, with more seeds"
	@COURSE_SOAK=1 .venv/bin/python -m pytest $(or $(ARGS),$(TWO_AT_A_TIME) $(SOAKED))

mutants: $(READY)  ## plant faults in a copy of the library and see the tests catch each
	@echo "mutants: one fault after the other, some minutes in all"
	@.venv/bin/python -m tests.mutants

count: $(READY)  ## lines of Python in each folder, beside their budgets
	@.venv/bin/python -m tests.count

build: $(READY)  ## build the notebooks whose source changed (ARGS="05" or ARGS="--all")
	@echo "build: notebooks from their sources"
	@.venv/bin/course build $(ARGS)

lint: $(READY)  ## check code and notebooks with ruff
	@echo "lint: ruff over code and notebooks"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

bench: $(READY)  ## run the benchmarks (ARGS="launch" runs the one of that name)
	@echo "bench: running the benchmarks; nothing else should be running"
	@.venv/bin/python -m tests.benchmarks $(ARGS)

clean:  ## remove the virtual environment and caches; notebooks and answers stay
	@echo "clean: removing .venv and caches"
	@rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
	@find course_lib tests notebooks solutions exercises \
	  \( -name __pycache__ -o -name .ipynb_checkpoints \) -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt setup_env.py
	@for python in $(PYTHONS); do \
	  if $$python -c '$(SUITABLE)' 2>/dev/null; then exec $$python setup_env.py; fi; \
	done; \
	echo "set-up: no suitable Python among: $(PYTHONS)." >&2; \
	echo "The course needs Python 3.10, 3.11, 3.12 or 3.13 with its venv module (Debian, Ubuntu: apt install python3-venv)." >&2; \
	echo "If it is somewhere else, name it: make PYTHON=/path/to/python" >&2; \
	exit 1
