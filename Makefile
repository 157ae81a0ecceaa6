# make setup: a virtual environment in .venv; make demo: match the bundled photographs; make test: all that CI runs.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: setup demo test lint types imports docs unit clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	touch $@

demo: setup
	mkdir -p out
	$(BIN)/lightglue match assets/montmartre_close.jpg assets/montmartre_far.jpg --output out/demo.png

test: lint types imports docs unit

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

docs: setup  # the site in out/site, without a network; -n -W: a broken link or reference is an error
	$(BIN)/python -m sphinx -E -a -n -W --keep-going -q -d out/doctrees docs out/site

unit: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4  # a process a core rather than threads

clean:
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
