# The commands of the README and CONTRIBUTING. They make their own virtual environment; GNU make, Python 3.11+ and pip are enough.
PYTHON ?= python3
VENV ?= .venv
SIZE ?= tiny
DATA ?=
ARGS = --size $(SIZE) $(if $(DATA),--data "$(DATA)")

.PHONY: demo test test-all lint coverage docs docs-generate clean

demo: $(VENV)/.installed
	$(VENV)/bin/distillkit demo $(ARGS)

# Two workers with a thread each, and whole files for each: tests of a file share what they prepare.
PYTEST = OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed
	$(PYTEST) -m 'not slow'

test-all: $(VENV)/.installed
	$(PYTEST)

lint: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet 'ruff>=0.6' 'pyright>=1.1.380'
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

coverage: $(VENV)/.installed
	$(VENV)/bin/pip install --quiet 'coverage[toml]>=7.10'
	$(VENV)/bin/coverage run -m pytest
	$(VENV)/bin/coverage combine --quiet && $(VENV)/bin/coverage report

docs: $(VENV)/.installed docs-generate
	$(VENV)/bin/pip install --quiet 'mkdocs-material>=9.5' 'mkdocstrings[python]>=0.26'
	$(VENV)/bin/mkdocs build --strict
	@echo "Open site/index.html, or with search: $(VENV)/bin/python -m http.server --directory site"

docs-generate: $(VENV)/.installed
	$(VENV)/bin/python docs/generate.py

# One pip call for everything, so that the resolver sees all pins together (compressai needs numpy < 2).
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[demo,test]'
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info
