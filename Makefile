# Everything runs from a fresh clone: each target sets up what it needs.
PYTHON := .venv/bin/python
LIMIT ?= 1000
MINUTES ?= 25
METHODS := none,pitome,tome,tofu,diffrate,random,stride

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench report docs nightly soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## virtual environment with all dependencies, in .venv
	@bash scripts/setup.sh

demo: setup ## merge tokens in a trained ViT, all methods, on 1,000 test images (LIMIT=n for others)
	@$(PYTHON) run.py -m merge=$(METHODS) ratio=0.95,0.9,0.85 control=resize limit=$(LIMIT)

test: setup ## the test suite
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 -m "not nightly"

lint: setup ## formatter, linter, types, direction of imports
	@.venv/bin/ruff format --check . && .venv/bin/ruff check . && $(PYTHON) -m mypy && .venv/bin/lint-imports --no-cache

bench: setup ## speed beside the unmerged model; MINUTES=n (25), REFERENCE=folder of the authors' code, QUICK=1
	@$(PYTHON) -m scripts.bench --minutes $(MINUTES) $(if $(REFERENCE),--reference $(REFERENCE)) $(if $(QUICK),--quick)

report: setup ## tables and plots of all recorded runs, and the page of all results, results/index.html
	@$(PYTHON) scripts/report.py

docs: setup ## the documentation site, in site/; broken links are errors
	@$(PYTHON) -m mkdocs build --strict --quiet && echo site/index.html

nightly: setup ## the tests that take minutes as well
	@OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2

soak: setup ## 10,000 command lines, 200 kills, 500 runs in one process (docs/reliability.md)
	@SOAK_LINES=10000 SOAK_KILLS=200 SOAK_RUNS=500 OMP_NUM_THREADS=1 $(PYTHON) -m pytest \
	  tests/cli/test_lines.py tests/runs/test_crash.py tests/runs/test_long_process.py tests/records

clean: ## remove the environment and caches; results stay
	rm -rf .venv build site *.egg-info outputs multirun .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
