# make demo: sets everything up and runs the main job.   make test: sets everything up and passes the tests.
PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin
INSTALL := $(RUN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test check docs bench wheel-test bare-test clean

demo: $(VENV)/.all
	$(RUN)/python examples/test_multiplatform_router.py

# Two workers take a file each, with servers of their own; what rests on real time runs afterwards, alone.
WORKERS ?= 2
test: $(VENV)/.dev
	$(RUN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not nightly and not serial"
	$(RUN)/python -m pytest -m "serial and not nightly" $$(grep -rl pytest.mark.serial tests --include='test_*.py')

# Lint, format, types, import contracts and generated docs.
check: $(VENV)/.dev
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	MYPYPATH=docs:examples/event_sourcing $(RUN)/mypy --explicit-package-bases examples docs
	$(RUN)/lint-imports --no-cache
	$(RUN)/python docs/generate.py --check

# Refreshes the generated reference pages and the code in the docs.
docs: $(VENV)/.dev
	$(RUN)/python docs/generate.py

bench: $(VENV)/.bench
	$(RUN)/python -m benchmarks

# The tests (or some: TESTS) against the built wheel, with src/ out of reach. OUT is a folder of its own per Python.
OUT ?= build/wheel-test
TESTS ?= tests
wheel-test: $(VENV)/.python
	rm -rf $(OUT) && mkdir -p $(OUT)/tree
	$(INSTALL) build
	$(RUN)/python -m build --quiet --wheel --outdir $(OUT) .
	$(INSTALL) "$$(ls $(OUT)/*.whl)[all,test]"
	cp -R tests examples docs README.md CHANGELOG.md Makefile pyproject.toml $(OUT)/tree
	cd $(OUT)/tree && $(abspath $(RUN))/python -m pytest -m "not nightly and not slow and not serial" $(TESTS)

# The wheel with no extras at all: what works without them works, what does not names the extra.
bare-test: $(VENV)/.python
	rm -rf $(OUT) && mkdir -p $(OUT)/tree/tests
	$(INSTALL) build pytest
	$(RUN)/python -m build --quiet --wheel --outdir $(OUT) .
	$(INSTALL) "$$(ls $(OUT)/*.whl)"
	cp -R tests/bare $(OUT)/tree/tests && touch $(OUT)/tree/pytest.ini
	cd $(OUT)/tree && $(abspath $(RUN))/python -m pytest -p no:cacheprovider tests/bare

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "oms-events needs Python 3.11 or newer; say which with: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.all: $(VENV)/.python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[all]'
	touch $@

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/.python pyproject.toml constraints.txt
	$(INSTALL) --editable '.[bench]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
