# The two commands of the README are `make demo` and `make test`; the rest are their parts.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-fast lint types tests docs minimum bare dist screenshots bench format clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/wildcat quickstart --out runs/quickstart

# Lint, types and documentation are checked at the same time, on two cores.
test: $(VENV)/installed
	$(MAKE) --jobs 2 lint types docs
	$(MAKE) tests

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/installed
	$(BIN)/mypy

# PYTEST: one thread in each of several processes, because threads of several processes on the same cores slow each
# other down. Files with slow tests come first (tests/conftest.py), so that all processes end at about the same time.
tests: $(VENV)/installed
	$(PYTEST)

# The developer's loop: no tests that start a process, a browser, Ray or an export, or take longer than half a second.
test-fast: $(VENV)/installed
	$(PYTEST) -m "not slow"

# The oldest versions that pyproject.toml allows, without the optional packages. Warnings of old versions are no errors.
minimum:
	$(PYTHON) -m venv --clear build/minimum
	build/minimum/bin/pip install --quiet uv
	build/minimum/bin/uv pip install --quiet --python build/minimum --resolution lowest-direct --editable '.[test,coco]'
	touch build/minimum/installed
	PYTEST_ADDOPTS="-W default" $(MAKE) test-fast VENV=build/minimum

# The package without the optional packages, as a user installs it. PACKAGE=FILE.whl checks a built wheel.
PACKAGE := .
bare:
	$(PYTHON) -m venv --clear build/bare
	build/bare/bin/pip install --quiet $(PACKAGE)
	.ci/smoke build/bare

# The source distribution and the wheel, in dist/.
dist:
	rm -rf dist
	$(PYTHON) -m venv --clear build/packaging
	build/packaging/bin/pip install --quiet build twine
	build/packaging/bin/python -m build --outdir dist
	build/packaging/bin/twine check --strict dist/*

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
