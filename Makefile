# The one door: every command of the project, a line apiece.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# Outside the tree, so that clean checkouts share it.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/toromq/target

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import tomllib;print('\n'.join(tomllib.load(open('pyproject.toml','rb'))['dependency-groups']['tools']))" > $(VENV)/tools.txt
	$(BIN)/pip install --quiet -r $(VENV)/tools.txt
	touch $@

build: $(BIN)/.ready ## build the engine and install the package into .venv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet

lint: $(BIN)/.ready ## check formats, lints and types
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	$(BIN)/python tools/make_sync.py --check
	$(BIN)/ruff check .
	$(BIN)/mypy python/toromq

test: build ## run every test
	cargo test --workspace --quiet
	$(BIN)/python -m pytest -q

.PHONY: help build lint test
