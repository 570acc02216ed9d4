# The two commands a person needs are `make up` and `make test`.
.PHONY: up test bench lint
CARGO ?= cargo

up test bench lint: | rust

.PHONY: rust
rust:
	@command -v $(CARGO) >/dev/null || { \
	  echo "Plumb needs Rust. Install it with rustup: https://rustup.rs"; exit 1; }

test:
	$(CARGO) test --workspace

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
