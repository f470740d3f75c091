# make demo: install what it needs, then run the whole path on the embedded playground.
# make test: install the rest, then all tests.
PYTHON ?= python3
VENV := .venv
DEMO := $(VENV)/.installed-demo
STAMP := $(VENV)/.installed

.PHONY: demo test trust test-oldest lint docs package clean

demo: $(DEMO)
	$(VENV)/bin/fgda demo

test: $(STAMP)
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal

# Kill, stop, starve and misuse the commands on purpose: about a quarter of an hour.
trust: $(STAMP)
	$(VENV)/bin/python -m pytest tests/trust -m slow

# With the oldest releases that pyproject.toml allows; tests of extras are skipped.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet -c tests/oldest.txt \
		-e . pytest pytest-xdist hypothesis
	.venv-oldest/bin/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check . && $(VENV)/bin/hadolint Dockerfile

# The pages of docs/, the commands' help and the docstrings; a link that leads nowhere fails.
docs: $(STAMP)
	$(VENV)/bin/sphinx-build -q -W --keep-going -b html docs build/docs

# Wheel and sdist, as they would be published.
package: $(STAMP)
	rm -rf dist
	$(VENV)/bin/python -m build --outdir dist . > /dev/null
	$(VENV)/bin/twine check --strict dist/*

$(DEMO): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e .
	touch $@

$(STAMP): $(DEMO)
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) .venv-oldest build dist *.egg-info .pytest_cache .ruff_cache
