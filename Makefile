# One command each; every target installs what it needs (scripts/setup.sh).

SHELL := bash
CARGO ?= cargo
# The tools that the set-up downloaded, if cargo had none of its own.
with_tools := . scripts/places.sh &&
# A test with its servers keeps a core busy, but waits a third of its time.
test_threads := $(shell n=$$(nproc); echo $$((n + (n + 1) / 2)))

.PHONY: help setup demo test test-clients test-unit soak lint bench fuzz

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: ## Install compilers, cargo's tools and PostgreSQL 15 to 18
	@scripts/setup.sh

demo: setup ## Build Everpoint and show it at work on a server of its own
	@$(CARGO) build --release
	@scripts/demo.sh

test: setup ## Run every test, against real PostgreSQL 15 to 18 servers
	@$(with_tools) $(CARGO) nextest run --workspace --test-threads $(test_threads)
	@$(CARGO) test --quiet --workspace --doc

test-clients: setup ## Drive the service with az and Azure's SDK for JavaScript (fetches 1 GB)
	@$(CARGO) build --release
	@scripts/test-clients.sh

test-unit: setup ## Run the systemd unit in a virtual machine of its own (as root; fetches a Debian)
	@$(CARGO) build --release
	@scripts/test-unit.sh

soak: setup ## Four simulated weeks of scheduled backups, with random restores checked against a ledger
	@EVERPOINT_SOAK_DAYS=28 $(CARGO) test -p everpoint-server --test soak -- --nocapture

lint: setup ## Check formatting, lints, licences and known vulnerabilities
	@$(CARGO) fmt --all -- --check
	@$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings
	@scripts/deny.sh

bench: setup ## Measure backup and restore
	@$(CARGO) build --release
	@$(CARGO) build --release -p everpoint-engine --example move_database
	@scripts/bench.sh

fuzz: setup ## Feed the decoder, the filter and the summary reader with damaged log (FUZZ_SECONDS each)
	@scripts/fuzz.sh
