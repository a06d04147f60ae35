# The two commands of the README are `make demo` and `make test`; the rest are their parts.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types tests docs screenshots bench format clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/wildcat quickstart --out runs/quickstart

test: lint types docs tests

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

# One thread in each of several processes: threads of several processes on the same cores slow each other down.
tests: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile

# Warnings are errors (mkdocs.yml); the pages are in build/site.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

# Of the report and the web page, for the documentation; the tests run the same at a small size.
screenshots: $(VENV)/installed
	$(BIN)/wildcat quickstart --out runs/quickstart
	$(BIN)/python -m docs.screenshots runs/quickstart/run

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache build *.egg-info
