# Two commands from nothing: `make demo` and `make test`. Both skip what is already done.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
TREE   := build/lint

.PHONY: demo test test-all lint docs paper bench dev clean

# The whole loop on embedded data and a simulated accelerator, in demo/.
demo: $(VENV)/installed
	mkdir -p demo/.ehdnas
	cd demo && ../$(BIN)/ehdnas run

# One process a core, and one that has nothing left takes of another's; the tests themselves compute on one thread.
TESTS := $(BIN)/pytest -n auto --dist worksteal

test: $(VENV)/installed-dev
	$(TESTS)

test-all: $(VENV)/installed-dev
	$(TESTS) -m "slow or not slow"

# mypy and the layer contract want the five folders as the one package they are installed as.
lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TREE) && mkdir -p $(TREE)/ehdnas
	ln -s $(CURDIR)/toolkit/* $(foreach part,search exporters profilers core,$(CURDIR)/$(part)) $(TREE)/ehdnas/
	MYPYPATH=$(TREE) $(BIN)/mypy
	PYTHONPATH=$(TREE) $(BIN)/lint-imports

# The pages, in build/site; a broken link is an error.
docs: $(VENV)/installed-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# What can be regenerated of the paper, the published values beside it.
paper: $(VENV)/installed-dev
	$(BIN)/python bench/paper.py

bench: $(VENV)/installed-dev
	set -e; for script in bench/*.py; do $(BIN)/python $$script; done

dev: $(VENV)/installed-dev
	$(BIN)/pre-commit install

clean:
	rm -rf $(VENV) build demo *.egg-info

# constraints.txt pins torch to a release that has a CPU build; pip takes that build wherever it is offered.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@
