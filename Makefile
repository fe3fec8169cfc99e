# What CI runs is `make test`. `make` alone lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# nomsgpack: gin without the msgpack codec, 6.6 MB less binary.
TAGS     := nomsgpack
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -X github.com/madang-chat/madang/internal/app.version=$(VERSION)
FUZZTIME ?= 2s
FUZZCOUNT ?= 2000000x
CHAOSTIME ?= 10m
export GOTOOLCHAIN ?= local

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/madang
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)' -o bin/madang ./cmd/madang

.PHONY: test
test: deps lint ## everything that CI runs: lint, all tests with -race, each fuzz target for $(FUZZTIME)
	@.ci/test $(TAGS)
	cd deploy/check && go vet . && go test .
	@.ci/fuzz $(FUZZTIME)

.PHONY: deps
deps: ## what the tests need from the system (by apt, when it is missing)
	@.ci/deps

# With -race, because the tests are built so: most of a first run's time is compiling what we import.
# darwin: developers have it; nothing of it runs, so it is compiled as fast as can be. GOGC: a third of
# staticcheck's CPU would be collecting garbage; 0.7 GiB is what it takes without.
.PHONY: lint
lint: export GOGC = 400
lint: ## gofmt, vet, staticcheck (import rules are a test: internal/archtest)
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted (gofmt -w):"; echo "$$unformatted"; exit 1; fi
	go vet -race -tags $(TAGS) ./...
	GOOS=darwin go vet -tags $(TAGS) -gcflags='all=-N -l' ./...
	go run -exec .ci/raced $(STATICCHECK) -tags $(TAGS) ./...

.PHONY: fuzz
fuzz: ## each fuzz target FUZZCOUNT times: more than ten million executions of what reads clients' bytes
	@.ci/fuzz --guided $(FUZZCOUNT)

.PHONY: bench
bench: ## the figures that the budgets are held against, as one table (fourteen minutes)
	go run -tags $(TAGS) ./test/benchtable

.PHONY: bench-go
bench-go: ## every Go benchmark there is
	go test -tags $(TAGS) -run '^$$' -bench . -benchmem ./...

.PHONY: chaos
chaos: deps ## faults at full volume: 10 minutes of processes killed under load; a million simulated schedules
	go run -tags $(TAGS) ./test/chaos -for $(CHAOSTIME)
	MADANG_TEST_FULL=1 go test -tags $(TAGS) -count=1 -timeout 60m -v ./test/...
	MADANG_TEST_FULL=1 go test -tags $(TAGS) -count=1 -timeout 60m -v ./gateway/follow/...

.PHONY: fmt
fmt: ## format all Go files
	go run $(GOFUMPT) -w $$(git ls-files '*.go')
