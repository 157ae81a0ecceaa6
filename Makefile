# make demo: match the bundled photographs, with what the package itself needs. make test: all that CI runs.
# make setup: a virtual environment in .venv with the development tools and every extra.
# make setup-web: besides, a Chromium for the tests of the page, which are skipped without one.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
BASE := .venv/.installed
DEV := .venv/.installed-dev

.PHONY: setup setup-web demo test lint types imports unit docs pages clean

setup: $(DEV)

$(BASE): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -e .
	touch $@

$(DEV): $(BASE)
	$(INSTALL) -e '.[dev]'
	touch $@

setup-web: setup  # Debian's Chromium where apt can be used, else Playwright's own
	@if $(BIN)/python scripts/find_browser.py; then :; \
	elif command -v apt-get >/dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -q && apt-get install -q -y --no-install-recommends chromium; \
	else $(BIN)/python -m playwright install chromium; fi
	@$(BIN)/python scripts/find_browser.py

demo: $(BASE)
	mkdir -p out
	$(BIN)/lightglue match assets/montmartre_close.jpg assets/montmartre_far.jpg --output out/demo.png

test: lint  # one after the other beside the tests, of which some wait
	+$(MAKE) --no-print-directory -j2 unit types imports pages

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

# The site, without a network; -n -W: a broken link or reference is an error.
SPHINX = $(BIN)/python -m sphinx -E -a -n -W --keep-going -q

docs: setup  # in out/site
	$(SPHINX) -d out/doctrees docs out/site

pages: setup  # the same pages for the same errors, without those of source code
	$(SPHINX) -t check -d out/doctrees-check docs out/check

# A process a core, hyperthreads too, with one thread; of two threads, the one that waits leaves the core to others.
# Bytecode is kept also where containers say otherwise: the tests start many processes.
unit: export OMP_NUM_THREADS = 1
unit: export OMP_WAIT_POLICY = passive
unit: export OPENCV_FOR_THREADS_NUM = 1
unit: export PYTHONDONTWRITEBYTECODE =
unit: setup
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist worksteal

clean:
	rm -rf .venv out build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
