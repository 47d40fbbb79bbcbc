# Every target first sets up what it needs and is missing; `make help` lists them.
.DEFAULT_GOAL := help
.PHONY: setup dev test check bench soak help
SHELL := /usr/bin/env bash

# A missing runtime or client fails the tests that need it, where plain `cargo test` skips them.
FULL := NEARHOP_REQUIRE_ORT=1 NEARHOP_REQUIRE_CLIENTS=1

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-7s %s\n", $$1, $$2}' Makefile

setup: ## install what building and testing need and this machine lacks
	@scripts/setup.sh

dev: ## run DNS, edge and two pods with the built-in model on this machine (ARGS="…")
	@scripts/setup.sh dev
	@[[ -x target/release/nearhop ]] || echo "The first build takes some minutes; the next ones take seconds."
	cargo run --release --locked -- dev $(ARGS)

test: ## run all tests
	@scripts/setup.sh test
	$(FULL) cargo test --workspace --locked
	@.models/venv/bin/python origin-inference/models/nearhop-mini/train/smoke.py --without-torch

check: ## format, lints, docs and licences
	@scripts/setup.sh dev
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items
	@scripts/deny.sh

bench: ## measure all suites beside their peers, into benches/results (SUITES="gateway dns")
	@scripts/setup.sh test
	@scripts/peers.sh
	cargo build --release --locked
	cargo build --release --locked -p nearhop-geo --example dns_load
	cargo build --release --locked -p nearhop-edge-cache --example reuse --example semantic_scan
	cargo build --release --locked -p nearhop-test-replay --example semantic_replay
	python3 benches/run.py $(SUITES) --results benches/results

soak: ## run the long tests (minutes), with their figures
	@scripts/setup.sh test
	NEARHOP_SOAK=1 $(FULL) cargo test --release --locked --test it -- --nocapture --test-threads 1 soak:: endurance chaos:: floods:: under_load regions:: resuming hedging matrix overload typing must_miss leaks shared_cache questions
	NEARHOP_SOAK=1 $(FULL) cargo test --release --locked -p nearhop-geo
