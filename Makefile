# Everything runs in a virtual environment of the checkout's own; nothing is installed elsewhere.
PYTHON ?= python3
PYTHON_FREETHREADED ?= python3.14t
# What PyO3 would ask that interpreter, to compile for it where there is none.
FREETHREADED_CONFIG := rust_core/python-3.14t.txt
VENV := .venv
BIN := $(VENV)/bin
TOOLS := $(VENV)/.tools
BUILT := $(VENV)/.built
WHEEL_TARGETS := x86_64-unknown-linux-gnu aarch64-unknown-linux-gnu
RUST_SOURCES := $(shell find rust_core -name '*.rs') Cargo.toml Cargo.lock rust_core/Cargo.toml

.DEFAULT_GOAL := help
.PHONY: help run build test test-rust test-py test-slow conformance test-vllm lint format typecheck bench bench-check bench-record bench-peers bench-page docs wheel wheels wheel-freethreaded smoke ci clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: build ## Build, install and simulate the Azure 2023 conversation trace
	$(BIN)/python -m llm_inference_simulator --model llama-3.1-8b --xpu h100-sxm \
	  --trace azure-conv-2023 --output results.json

build: $(BUILT) ## Build the Rust core and install the package into .venv

test: test-rust test-py ## Run all tests

test-rust: $(TOOLS) ## Rust tests, and the binding for Python with and without its lock
	cargo test --quiet
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo check --quiet --features python
	PYO3_CONFIG_FILE=$(abspath $(FREETHREADED_CONFIG)) cargo check --quiet --features binding

test-py: $(BUILT) ## Python tests: unit, property, analytic, binding
	$(BIN)/python -m pytest -q -n auto

test-slow: $(BUILT) ## Long fuzzing and scale runs
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -q -m "not conformance and not vllm" tests/property
	$(BIN)/python -m pytest -q -m slow tests/unit tests/analytic tests/binding

conformance: $(BUILT) ## Replay all recorded decisions of the real vLLM scheduler
	$(BIN)/python -m vllm_benchmarks.replay_decisions tests/golden/*/*.jsonl.gz
	$(BIN)/python -m pytest -q -m conformance

test-vllm: $(BUILT) ## Tests that need vLLM in .venv
	$(BIN)/python -m pytest -q -m vllm

lint: $(TOOLS) ## Formatting and lints of both languages
	cargo fmt --check
	PYO3_PYTHON=$(abspath $(BIN)/python) cargo clippy --quiet --all-targets --features python -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(TOOLS) ## Format both languages
	cargo fmt
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format --quiet .

typecheck: $(BUILT) ## mypy, and the core's stub against the binary
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest llm_inference_simulator._core

bench: $(BUILT) ## Speed of the core beside plain Python, and instruction counts
	$(BIN)/python benchmarks/bench.py

bench-check: $(TOOLS) ## Instruction counts against the last record (+5 % fails)
	$(BIN)/python -m benchmarks.instruction_counts check

bench-record: $(TOOLS) ## Record instruction counts: make bench-record REASON='why they changed'
	$(BIN)/python -m benchmarks.instruction_counts record '$(subst ','\'',$(REASON))'

bench-peers: $(BUILT) ## Other simulators beside us on one workload (installs them into .venv-peers)
	$(BIN)/python -m benchmarks.peers

bench-page: $(BUILT) ## Run everything that docs/performance.md shows and write it there
	$(BIN)/python -m benchmarks.performance_page

docs: $(TOOLS) ## Build the documentation site into site/; a warning is an error
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/zensical build --strict --clean

wheel: $(TOOLS) ## Build the wheel into dist/
	rm -rf dist
	$(BIN)/maturin build --release --out dist

wheels: $(TOOLS) ## Build manylinux wheels for x86-64 and arm64, test ours on every Python here
	$(BIN)/python -m pip install --quiet --group wheels
	rustup target add $(WHEEL_TARGETS)
	rm -rf dist
	export PATH="$(abspath $(BIN)):$$PATH"; \
	for target in $(WHEEL_TARGETS); do \
	  maturin build --release --zig --compatibility manylinux2014 --target $$target --out dist || exit 1; \
	done
	bash scripts/smoke_all.sh dist

wheel-freethreaded: $(TOOLS) ## Build a wheel for the free-threaded Python 3.14 into dist/, test it where PYTHON_FREETHREADED is
	@if command -v $(PYTHON_FREETHREADED) >/dev/null; then \
	  $(BIN)/maturin build --release --out dist --features binding --interpreter $(PYTHON_FREETHREADED) && \
	  PYTHON=$$(command -v $(PYTHON_FREETHREADED)) bash scripts/smoke.sh dist/*cp314t*.whl; \
	else \
	  PYO3_CONFIG_FILE=$(abspath $(FREETHREADED_CONFIG)) \
	    $(BIN)/maturin build --release --out dist --features binding --interpreter python3.14t && \
	  echo "built for Linux, not tested: there is no $(PYTHON_FREETHREADED) (PYTHON_FREETHREADED=/path/to/it)"; \
	fi

smoke: wheel ## Install the wheel into an empty environment elsewhere and run the main job there
	bash scripts/smoke.sh dist/*.whl

ci: lint typecheck test bench-check docs smoke ## All checks

clean: ## Remove what was built
	rm -rf $(VENV) .venv-peers dist site target

$(TOOLS): pyproject.toml scripts/check_tools.sh
	@PYTHON=$(PYTHON) bash scripts/check_tools.sh
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(BUILT): $(TOOLS) $(RUST_SOURCES)
	PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --quiet
	@# An editable install exposes python/ only; the wheel ships vllm_benchmarks too.
	@$(BIN)/python -c "import pathlib, site; pathlib.Path(site.getsitepackages()[0], 'checkout.pth').write_text('$(CURDIR)\n')"
	@touch $@
