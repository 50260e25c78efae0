# `make run` and `make test` do all of their own set-up on a fresh Debian 12 with a Swift 6.3 toolchain on the PATH.
# What takes more than a line is a script in .ci/.

# Another folder keeps a build apart, for example `make test BUILD=.build-mine`.
BUILD ?= .build
# The relay that `make check` talks to.
URL ?= ws://localhost:8443

export SWIFT ?= swift
swift_build := $(SWIFT) build --scratch-path $(BUILD)
# Without a search of the program's own folder for libraries (RUNPATH): there are none.
release_build := $(swift_build) --configuration release --static-swift-stdlib --disable-local-rpath
packages := g++ git libseccomp-dev libsodium-dev libssl-dev pkg-config

.DEFAULT_GOAL := help
.PHONY: help run run-tls build test lint format check bench fuzz clean

help: ## Show what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: build ## Build the relay and run it on port 8443; RELAY_ variables apply (config/relay.env)
	@exec $(BUILD)/release/relay

run-tls: build ## The same over TLS, with a self-signed certificate that it makes
	@test -s $(BUILD)/dev-cert/cert.pem || $(BUILD)/release/relay dev-cert --out $(BUILD)/dev-cert
	@RELAY_TLS_CERT=$(BUILD)/dev-cert/cert.pem RELAY_TLS_KEY=$(BUILD)/dev-cert/key.pem exec $(BUILD)/release/relay

# With Swift's own libraries inside, the programs need no toolchain where they run. Product by product, because all at once
# would build the libraries of the tests as well.
build: ## Build relay, relay-worker and relay-load into .build/release
	@.ci/need $(packages)
	$(foreach product,relay relay-worker relay-load,$(release_build) --product $(product) &&) true

# Integration tests start the `relay` that lies beside them, so everything is built before any test runs.
test: ## Build and run all tests
	@.ci/need $(packages) curl openssl
	$(swift_build) --build-tests
	$(SWIFT) test --scratch-path $(BUILD) --skip-build --disable-xctest

lint: ## Check the style (.swift-format)
	@.ci/need
	$(SWIFT) format lint --strict --recursive --parallel Package.swift Sources Tests Fuzz

format: ## Put the style right, as far as a program can
	@.ci/need
	$(SWIFT) format --in-place --recursive --parallel Package.swift Sources Tests Fuzz

check: build ## Check a running relay end to end: make check URL=ws://HOST:PORT
	$(BUILD)/release/relay-load check --url $(URL)

bench: export RELAY = $(abspath $(BUILD)/release/relay)
bench: export LOAD = $(abspath $(BUILD)/release/relay-load)
bench: build ## Measure CPU time, memory and allocations (Benchmarks/README.md)
	@.ci/need openssl procps
	Benchmarks/run
	TLS=1 Benchmarks/run
	Benchmarks/handshakes
	Benchmarks/moves
	Benchmarks/memory
	Benchmarks/allocations

fuzz: ## Fuzz parsers and decoders, 30 s each (Fuzz/README.md); SECONDS=N for longer
	@.ci/need $(packages)
	Fuzz/run all $(or $(SECONDS),30)

clean: ## Remove what was built
	rm -rf $(BUILD) .build-bench .build-fuzz
