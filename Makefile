# The one door: every command of the project, a line apiece.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
# Outside the tree, so that clean checkouts share it.
export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/toromq/target

SIDE_BY_SIDE = --numprocesses auto --maxprocesses 8 --dist worksteal
# What must also hold in one slot of a cluster, under a prefix with colons.
IN_ONE_SLOT = control crashes data ids limits order progress_and_logs results retention retries waits wakeups

help: ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import tomllib;print('\n'.join(tomllib.load(open('pyproject.toml','rb'))['dependency-groups']['tools']))" > $(VENV)/tools.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -r $(VENV)/tools.txt
	touch $@

build: $(BIN)/.ready ## build the engine and install the package into .venv
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	# As pip does for what it installs, where Python itself may be forbidden to: half of what the first import takes.
	$(BIN)/python -m compileall -q python/toromq

demo: build ## watch thousands of real files being read by workers
	$(BIN)/python examples/read_the_library.py

lint: $(BIN)/.ready ## check formats, lints, types, and what is generated
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	test -z "$$(cargo tree -p toromq-core -i pyo3 2>/dev/null)"
	$(BIN)/python tools/make_sync.py --check
	$(BIN)/ruff check .
	$(BIN)/mypy python/toromq examples tools
	$(BIN)/pyright

test: build ## run every test
	cargo test --workspace --quiet
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE)
	TOROMQ_TEST_ONE_SLOT=1 $(BIN)/python -m pytest -q $(SIDE_BY_SIDE) $(IN_ONE_SLOT:%=tests/interop/test_%.py)

bench: build ## measure beside Node BullMQ and the bullmq package
	$(BIN)/python -m bench

.PHONY: help build demo lint test bench
