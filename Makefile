# Every routine of the project is a target here; README, CI and hooks call these and nothing else.
# It needs Rust (cargo), Python 3.10 or newer with pip, and make.

PYTHON ?= python3
VENV   := .venv
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
else
  BIN := $(VENV)/bin
endif
PY := $(BIN)/python
# What runs nano-vLLM itself has torch and transformers; any interpreter that has them, and the group "test", will do.
LIVE_PYTHON ?= .venv-live/bin/python
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# The versions and hashes in a lock and no others; wheels only, as to build anything else takes tools that no lock names.
INSTALL := -m pip install --quiet --require-hashes --only-binary :all: --requirement

# The extension links against no Python of its own choice: the one that will import it.
export PYO3_PYTHON := $(abspath $(PY))
export VIRTUAL_ENV := $(abspath $(VENV))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# For every system, and every Python that pyproject.toml allows.
LOCK := $(PY) -m uv pip compile --quiet --universal --python-version 3.10 --no-python-downloads --generate-hashes \
  --annotation-style line --custom-compile-command 'make lock' $(LOCK_ARGS)

# Checks deny.toml. Compiled without optimisation, which takes a minute instead of several; it has little to do.
DENY_VERSION := 0.20.2
DENY_ROOT := $(or $(CARGO_TARGET_DIR),target)/tools/cargo-deny-$(DENY_VERSION)
DENY      := $(DENY_ROOT)/bin/cargo-deny

RUST_SOURCES := $(shell find rust Cargo.toml Cargo.lock -name '*.rs' -o -name 'Cargo.*')
# Without the extension, a cdylib whose tests are Python's, and with every device. The target `registry` runs without candle
# too: of the same packages, so that cargo compiles their dependencies with the same features, once.
RUST_TESTS   := --workspace --exclude nanovllm-python --features nanovllm-devices/candle

TEST_WHEEL = $(PY) -m pytest tests/test_wheel.py --wheel dist/*.whl

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run forewarn test test-rust test-python parity mutants lint advisories fmt lock build wheel-test release-wheel \
  develop demo-model bench bench-types fuzz doc clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

run: forewarn develop demo-model ## Build, fetch the demo model and answer two prompts
	@echo "==> Answering two prompts (examples/example.py)"
	@model="$$($(PY) examples/download_demo_model.py)" && $(PY) examples/example.py "$$model" && \
	  echo "==> Done. The engine is installed in $(VENV), and the model is the file $$model" && \
	  echo "    Again, or with a model of yours: $(PY) examples/example.py [MODEL]"

forewarn:
	@[ -e $(VENV)/.developed ] || echo "==> The first time takes 4 to 5 minutes on 2 cores: nearly all of it compiles the engine"

test: test-rust test-python ## Run every test, Rust and Python

test-rust: $(VENV)/.installed ## Run the Rust tests
	@if cargo nextest --version >/dev/null 2>&1; \
	  then echo 'cargo nextest run'; cargo nextest run --locked $(RUST_TESTS); \
	  else echo 'cargo test'; cargo test --locked $(RUST_TESTS) --all-targets; fi
	cargo test --locked $(RUST_TESTS) --doc
	cargo test --locked --workspace --exclude nanovllm-python --test registry

test-python: develop demo-model ## Run the Python tests
	$(PY) -m pytest $(PYTEST_ARGS)

parity: develop $(if $(NANO_VLLM),$(filter .venv-live/%,$(LIVE_PYTHON))) ## Compare with a model of nano-vLLM, or with the checkout NANO_VLLM=...
	PYTHONPATH=python $(if $(NANO_VLLM),$(LIVE_PYTHON),$(PY)) -m pytest tests/parity --hypothesis-profile parity \
	  $(if $(NANO_VLLM),--nano-vllm $(NANO_VLLM) tests/test_layer_arrays.py) $(PYTEST_ARGS)

mutants: develop ## Break one behaviour at a time, and see its parity suite fail
	$(PY) tests/tools/mutations.py $(WORDS)

lint: develop $(DENY) ## Check format, lints, types, stubs, documentation, and the dependencies' licences and sources
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --workspace --all-targets --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --workspace --no-deps
	$(DENY) --locked check --hide-inclusion-graph bans licenses sources
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m mypy.stubtest nanovllm._core

advisories: $(DENY) ## Look the Rust dependencies up in the database of known vulnerabilities (needs the network)
	$(DENY) --locked check advisories

fmt: $(VENV)/.installed ## Format Rust and Python
	cargo fmt --all
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

lock: $(VENV)/.installed ## Make requirements/*.lock anew after a change of pyproject.toml (LOCK_ARGS=--upgrade: with the newest versions)
	$(PY) -m pip install --quiet --no-deps --group lock
	$(LOCK) pyproject.toml --group dev --output-file requirements/dev.lock
	$(LOCK) pyproject.toml --constraint requirements/dev.lock --output-file requirements/run.lock
	$(LOCK) --group release --output-file requirements/release.lock

build: $(VENV)/.installed ## Build a wheel for systems like this one into dist/
	rm -f dist/*.whl
	$(PY) -m maturin build --release --out dist

wheel-test: develop build ## Build a wheel, install it in an environment of its own and test it there
	$(TEST_WHEEL)

release-wheel: develop ## Build and test a wheel for every Linux with glibc 2.17 or newer (with zig, for minutes)
	$(PY) $(INSTALL) requirements/release.lock
	rm -f dist/*.whl
	RUSTFLAGS="--remap-path-prefix=$${CARGO_HOME:-$$HOME/.cargo}=cargo" CARGO_ZIGBUILD_PYTHON_PATH=$(abspath $(PY)) \
	  $(PY) -m maturin build --release --zig --compatibility manylinux_2_17 --out dist
	$(TEST_WHEEL)

develop: $(VENV)/.developed ## Build the engine and install the package in .venv

demo-model: $(VENV)/.installed ## Fetch the demo model into the cache (98 MB, once)
	@echo "==> Demo model: $$($(PY) examples/download_demo_model.py)"

bench-types: develop ## Measure every quantisation type beside llama.cpp (BENCH_ARGS='--llama-bin DIR')
	$(PY) bench/bench_types.py $(BENCH_ARGS)

bench: develop demo-model ## Measure speed and memory on the demo model
	$(PY) bench/bench_cpu.py "$$($(PY) examples/download_demo_model.py)" $(BENCH_ARGS)

fuzz: ## Fuzz the parsers of model files, tokenizers and chat templates for FUZZ_SECONDS=600 (nightly Rust, cargo-fuzz)
	rust/fuzz/run.sh

doc: ## Build the Rust documentation
	cargo doc --locked --workspace --no-deps

clean: ## Remove what was built, the virtual environment included
	cargo clean
	rm -rf $(VENV) .venv-live dist python/nanovllm/_core*.so python/nanovllm/_core*.pyd

$(PY):
	@echo "==> Creating the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || $(PYTHON) -m virtualenv $(VENV) || \
	  { rm -rf $(VENV); echo "Python's venv module with ensurepip is needed (on Debian: apt install python3-venv)" >&2; exit 1; }

$(DENY):
	@echo "==> Compiling cargo-deny (a minute or two, once)"
	@env -u CARGO_TARGET_DIR cargo install --quiet --locked --debug --config profile.dev.debug=false \
	  --root $(DENY_ROOT) cargo-deny --version $(DENY_VERSION)

.venv-live/bin/python: | $(PY)
	@echo "==> Creating .venv-live, with torch and transformers"
	$(PY) -m venv .venv-live
	$@ $(INSTALL) requirements/dev.lock
	$@ -m pip install --quiet --index-url $(TORCH_INDEX) torch
	$@ -m pip install --quiet --group live

$(VENV)/.installed: requirements/dev.lock | $(PY)
	@echo "==> Installing the build and test tools"
	$(PY) $(INSTALL) requirements/dev.lock
	@touch $@

$(VENV)/.developed: $(VENV)/.installed $(RUST_SOURCES)
	@echo "==> Building the engine: about 4 minutes on 2 cores the first time, 1 to 3 after a change of its core"
	@# It asks pip for the package's requirements and the group dev, which are all there: pip must not look elsewhere.
	PIP_NO_INDEX=1 PIP_QUIET=1 $(PY) -m maturin develop --release
	@touch $@
