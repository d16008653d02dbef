# Coffer. "make help" lists the targets. Everything that must be installed is
# installed by .ci/setup, on Debian and Ubuntu, when a target needs it.

SHELL       := /bin/bash
GO          ?= go
BIN         := bin/coffer
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BUILDFLAGS  := -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# Test servers and checkers live outside the tree, in one directory for each
# set of versions; storetest looks for the servers in COFFER_TOOLS_DIR.
export COFFER_TOOLS_DIR := $(shell .ci/setup --print-dir)

# At most two packages at a time: each starts servers and real mounts.
TESTFLAGS    ?=
PKGS         ?= ./...
TEST_TIMEOUT ?= 60m
FUZZTIME     ?= 30s

.PHONY: build demo test e2e e2e-cse e2e-radosgw interop lint fuzz bench bench-peers bench-peers-read clean help setup-demo setup-test setup-radosgw setup-oracles setup-peers setup-lint

build: ## build ./bin/coffer, static
	CGO_ENABLED=0 $(GO) build $(BUILDFLAGS) -o $(BIN) ./cmd/coffer

demo: setup-demo build ## mount, mkdir, cp, ls, getfattr, proof at rest, unmount, on real files
	./$(BIN) demo

test: setup-test ## all tests with the race detector, real servers and real mounts included
	@skipped=$$(mktemp); set -x; \
	COFFER_SKIPPED=$$skipped COFFER_REQUIRE_SERVERS=1 $(GO) test -race -p 2 -timeout $(TEST_TIMEOUT) $(TESTFLAGS) $(PKGS); \
	{ status=$$?; set +x; } 2>/dev/null; cat $$skipped; rm -f $$skipped; exit $$status

e2e: setup-test ## only the tests with real mounts
	COFFER_REQUIRE_SERVERS=1 $(GO) test -race -count=1 -v -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./e2e/...

e2e-cse: setup-test ## the same with encryption on this side in every mount; "make test" does that with some of them
	COFFER_E2E_CSE=1 COFFER_REQUIRE_SERVERS=1 $(GO) test -race -count=1 -v -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./e2e/...

e2e-radosgw: setup-radosgw ## what "make test" leaves out: Ceph's radosgw, from Debian's packages, for a nightly run
	COFFER_RADOSGW=1 COFFER_REQUIRE_SERVERS=1 $(GO) test -race -count=1 -v -timeout $(TEST_TIMEOUT) $(TESTFLAGS) \
	  -run '^TestRadosGW$$|^TestModes$$/radosgw|^TestMainJobInEveryMode$$/radosgw' ./objstore/storetest ./e2e

interop: setup-oracles ## more of the tests with the official libraries of the AWS Encryption SDK than "make test" runs
	COFFER_INTEROP=full COFFER_REQUIRE_ORACLES=1 $(GO) test -count=1 -v -timeout $(TEST_TIMEOUT) $(TESTFLAGS) ./objstore/cse/interop

lint: setup-lint ## gofmt, vet, go mod tidy, staticcheck, govulncheck
	@.ci/lint

fuzz: setup-test ## each fuzz target for FUZZTIME (30s), and random operations on a mount
	@set -e; for pkg in $$($(GO) list $(PKGS)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "== $$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; \
	done
	COFFER_SEED=$$RANDOM COFFER_OPS=20000 $(GO) test -race -count=1 -v -run '^(TestLikeALocal.*|TestTwoMounts)$$' ./e2e

bench: setup-test ## every benchmark
	COFFER_REQUIRE_SERVERS=1 $(GO) test -run '^$$' -bench . -benchmem -p 1 -timeout 60m $(TESTFLAGS) $(PKGS)

bench-peers: setup-peers ## the same jobs of writing through Coffer, s3fs and rclone, as a table
	COFFER_PEERS=1 COFFER_REQUIRE_SERVERS=1 $(GO) test -count=1 -v -timeout 60m -run '^TestPeersWriting$$' ./e2e

bench-peers-read: setup-peers ## jobs of reading, as a table and a plot; COFFER_PEERS_JOBS=regexp chooses among them
	COFFER_PEERS=1 COFFER_REQUIRE_SERVERS=1 $(GO) test -count=1 -v -timeout 90m -run '^TestPeersReading$$' ./e2e

clean: ## remove what was built here (the tools outside the tree stay)
	rm -rf bin

help: ## this text
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup-demo:
	@.ci/setup demo
setup-test:
	@.ci/setup test
setup-radosgw:
	@.ci/setup radosgw
setup-oracles:
	@.ci/setup oracles
setup-peers:
	@.ci/setup peers
setup-lint:
	@.ci/setup lint
