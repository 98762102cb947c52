# Everything a developer or a machine runs here. `make help` lists it.

GO       ?= go
ARGS     ?=
FUZZTIME ?= 60s
BENCH    ?= .
SOAK     ?= 10

# Every folder with a go.mod, but for the pinned tools: they have no tests.
MODULES := $(shell find . -name go.mod -not -path './tools/*' -not -path '*/testdata/*' -exec dirname {} \; | sort)
NESTED  := $(filter-out .,$(MODULES))
TOOL    := $(GO) tool -modfile=$(CURDIR)/tools/go.mod

# $(call each,MODULES,COMMAND) runs COMMAND in every module and stops at the
# first that fails.
each = @set -e; for m in $(1); do echo "== $$m: $(2)"; (cd "$$m" && $(2)); done

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | awk -F'|' '{printf "make %-11s %s\n", $$1, $$2}'

.PHONY: demo
demo: check-go ## seal a real directory into a database, read it back, look for leaks; ARGS="-in DIR -out DIR2 -kek FILE"
	@cd examples && $(GO) run ./quickstart $(ARGS)

.PHONY: test
test: check-go check-cc ## run every test of every module with the race detector, then in FIPS mode
	$(call each,$(MODULES),CGO_ENABLED=1 $(GO) test -race -count=1 ./...)
	$(call each,.,$(GO) test -tags planted -count=1 ./applier ./internal/sim -run Planted)
	@$(MAKE) --no-print-directory fips

# The race detector finds nothing new here, so the root module goes without. The
# others keep it: their dependencies were just built with it, and building them
# again takes longer than the tests.
.PHONY: fips
fips: check-go ## run the tests with GODEBUG=fips140=on
	$(call each,.,GODEBUG=fips140=on $(GO) test -count=1 ./...)
	$(call each,$(NESTED),GODEBUG=fips140=on CGO_ENABLED=1 $(GO) test -race -count=1 ./...)

.PHONY: lint
lint: check-go ## gofumpt, go vet, golangci-lint
	@echo "== gofumpt"; bad=$$($(TOOL) gofumpt -l .) || exit 1; test -z "$$bad" || { echo "not formatted (gofumpt -w FILE):"; echo "$$bad"; exit 1; }
	$(call each,$(MODULES),$(GO) vet ./...)
	$(call each,$(MODULES),$(TOOL) golangci-lint run --config=$(CURDIR)/.golangci.yml ./...)

.PHONY: cross
cross: check-go ## compile and vet for the other systems, and where an int has 32 bits
	$(call each,$(MODULES),GOOS=windows CGO_ENABLED=0 $(GO) vet ./...)
	$(call each,$(MODULES),GOOS=darwin CGO_ENABLED=0 $(GO) vet ./...)
	$(call each,$(MODULES),GOOS=linux GOARCH=386 CGO_ENABLED=0 $(GO) vet ./...)

.PHONY: tidy-check
tidy-check: check-go ## every go.mod and go.sum says what the code needs
	$(call each,$(MODULES) tools,$(GO) mod tidy -diff)

.PHONY: fuzz
fuzz: check-go ## run every fuzz target for FUZZTIME (60s) each
	@GO="$(GO)" .ci/fuzz $(FUZZTIME) $(MODULES)

.PHONY: soak
soak: check-go check-cc ## the tests SOAK (10) times in random order, property tests with 1000 x SOAK checks, 10000 x SOAK simulated clusters
	$(call each,$(MODULES),CGO_ENABLED=1 $(GO) test -race -count=$(SOAK) -shuffle=on -timeout=24h ./...)
	@pkgs=$$($(GO) list -f '{{.ImportPath}} {{.TestImports}} {{.XTestImports}}' ./... | awk '/pgregory.net.rapid/ && !/internal\/sim / {print $$1}'); \
	echo "== property tests"; $(GO) test -count=1 -timeout=24h $$pkgs -rapid.checks=$(SOAK)000
	$(call each,.,$(GO) test -v -count=1 -timeout=24h ./internal/sim -run 'TestSimulation$$' -sim.scenarios=$(SOAK)0000)

.PHONY: bench
bench: check-go ## ratios to raw crypto/cipher beside the goals, then the Go benchmarks; ARGS goes to the comparison
	@$(GO) run ./internal/bench $(ARGS)
	$(call each,$(MODULES),$(GO) test -run '^$$' -bench '$(BENCH)' -benchmem ./...)

.PHONY: check-go
check-go:
	@v=$$($(GO) env GOVERSION 2>/dev/null) || { echo "make: Go 1.26 or later is needed; '$(GO)' does not run or refuses this go.mod"; exit 1; }; \
	set -- $$(echo "$$v" | sed -n 's/.*go\([0-9][0-9]*\)\.\([0-9][0-9]*\).*/\1 \2/p'); \
	test "$${1:-0}" -gt 1 || test "$${2:-0}" -ge 26 || { echo "make: Go 1.26 or later is needed, '$(GO)' is $$v"; exit 1; }

.PHONY: check-cc
check-cc:
	@printf '#include <stdlib.h>\n' | $$($(GO) env CC) -x c -fsyntax-only - 2>/dev/null || \
	{ echo "make: the race detector needs a C compiler with its headers, and '$$($(GO) env CC)' compiles nothing here (Debian: gcc and libc6-dev; macOS: xcode-select --install)"; exit 1; }
