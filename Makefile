# Needs Go (the version in go.mod), bash and git; gcc for the race detector.
# Everything else is fetched by the go command, at the versions named here.

STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.8.0
SYSTEMS     = linux darwin windows
MACHINES    = amd64 arm64

VERSION   ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# Without gRPC's own tracing page, whose templates keep the linker from leaving out
# what nothing calls: 3.3 MB.
TAGS = grpcnotrace
LDFLAGS    = -s -w -X main.release=$(VERSION)
FUZZTIME  ?= 10s
BENCHTIME ?= 1s
# Each benchmark once is a check that all of them work: the same for the processes.
BENCHFLAGS ?= $(if $(filter 1x,$(BENCHTIME)),-short)
TESTFLAGS ?=
E2EFLAGS  ?= -timeout 30m
SOAK      ?= 30m
RATE      ?= 2000
SOAKFLAGS ?=

# The race detector needs cgo, which the go command turns off without a C compiler.
RACE := $(if $(filter 1,$(shell go env CGO_ENABLED)),-race)

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: build images cross test lint vuln fuzz bench profile programs e2e soak cover latest clean

# Static binaries that any two machines build alike.
build:
	CGO_ENABLED=0 go build -trimpath -tags $(TAGS) -ldflags "$(LDFLAGS)" -o bin/ ./cmd/...

# The Dockerfile's images as archives in bin/images, without a container daemon.
images:
	go run ./deploy/image/pack -version $(VERSION) -o bin/images

# Every system and machine compiles; nothing is kept.
cross:
	@for os in $(SYSTEMS); do for arch in $(MACHINES); do \
	  echo "go build $$os/$$arch"; \
	  CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch go build -trimpath -o /dev/null ./cmd/svidecar || exit 1; \
	done; done
	@for arch in $(MACHINES); do \
	  echo "go build linux/$$arch, the webhook"; \
	  CGO_ENABLED=0 GOOS=linux GOARCH=$$arch go build -trimpath -o /dev/null ./cmd/svidecar-webhook || exit 1; \
	done

test:
ifeq ($(RACE),)
	@echo '*** NO C COMPILER: the race detector is OFF; data races will NOT be found ***' >&2
endif
	@command -v swtpm >/dev/null || echo '*** NO SWTPM: keys in a TPM are NOT tested (make e2e installs it) ***' >&2
	@{ unshare -n true || unshare -rn true; } 2>/dev/null || \
	  echo '*** NO NETWORK NAMESPACE: deploy/redirect is tested on paper only ***' >&2
	go test $(RACE) -shuffle=on $(TESTFLAGS) ./...

# What runs in a Linux cluster alone, and brings Kubernetes' libraries along, whose
# compilation for six systems takes longer than all the rest.
LINUX_ONLY = /(cmd/svidecar-webhook|deploy/(inject|podidentity|webhook)|e2e/(kubernetes|webhook))

lint:
	@fmt=$$(gofmt -l .); if [ -n "$$fmt" ]; then echo "gofmt -w these:" $$fmt >&2; exit 1; fi
	go mod tidy -diff
	go vet -tags e2e ./...
	@portable=$$(go list ./... | grep -vE '$(LINUX_ONLY)'); \
	for os in $(SYSTEMS); do for arch in $(MACHINES); do \
	  echo "go vet $$os/$$arch"; \
	  CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch go vet -tags e2e $$portable || exit 1; \
	done; done
	go run $(STATICCHECK) -tags e2e ./...

# A found vulnerability fails. A database out of reach does not: the next run
# finds it, and an offline machine can still build.
vuln:
	@if out=$$(go run $(GOVULNCHECK) ./... 2>&1); then echo "$$out"; \
	elif grep -q 'fetching vulnerabilities: .*\(dial\|lookup\|timeout\|refused\|Forbidden\)' <<<"$$out"; then \
	  echo "$$out" >&2; \
	  echo '*** THE VULNERABILITY DATABASE IS OUT OF REACH: NOTHING WAS CHECKED ***' >&2; \
	else echo "$$out" >&2; exit 1; fi

# Each fuzz test alone, for FUZZTIME. go test -list prints the names of a
# package before the line that names it. A failure is tried again, because the
# engine sometimes fails at its own deadline: a finding is kept in testdata, and
# fails again.
fuzz:
	@list=$$(go test -list '^Fuzz' ./... | awk '/^Fuzz/ { name[n++] = $$1 } \
	  /^(ok|\?)/ { for (i = 0; i < n; i++) print $$2, name[i]; n = 0 }'); \
	[ -n "$$list" ] || { echo 'no fuzz test found' >&2; exit 1; }; \
	while read -r pkg name; do \
	  echo "fuzz $$pkg $$name"; \
	  fuzz=(go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$pkg"); \
	  "$${fuzz[@]}" </dev/null || "$${fuzz[@]}" </dev/null || exit 1; \
	done <<<"$$list"

# The packages that have benchmarks, then whole processes. docs/benchmarks.md says
# how to read it; BENCHFLAGS='-write docs/benchmarks.md' puts the table there.
bench: build
	@dirs=$$(find . -name '*_test.go' -not -path '*/testdata/*' -exec grep -l '^func Benchmark' {} + | xargs -r dirname | sort -u); \
	[ -n "$$dirs" ] || { echo 'no benchmark found' >&2; exit 1; }; \
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $$dirs
	go run ./e2e/bench $(BENCHFLAGS)

# Where the time and the memory of a cached request go.
profile:
	mkdir -p bin
	go test ./proxy -run '^$$' -bench 'Cached/8' -benchtime 3s -cpuprofile bin/cpu.pprof -memprofile bin/mem.pprof -o bin/proxy.test
	go tool pprof -top -nodecount 25 bin/proxy.test bin/cpu.pprof
	go tool pprof -top -nodecount 15 -sample_index=alloc_space bin/proxy.test bin/mem.pprof

# The Kubernetes programs that e2e/kubernetes runs, built once for each version and
# kept in the user's cache: that takes 20 CPU-minutes.
programs:
	go run ./e2e/kubernetes/build

# Programs of Debian's, each with the package that has it.
E2E_NEEDS = curl:curl ip:iproute2 nsenter:util-linux swtpm:swtpm tpm2_create:tpm2-tools containerd:containerd runc:runc \
  javac:default-jdk-headless mvn:maven

# Installs those where apt-get can. Needs the right to make namespaces; root for
# e2e/kubernetes; python3 with venv, npm, node, openssl and cargo for e2e/verify and e2e/clients. What is
# missing fails, unless SVIDECAR_E2E_ALLOW_SKIP is set: then it is skipped, and said
# so. SPIRE_BIN_DIR is the folder of SPIRE's programs; without it e2e/spire runs
# against stand-ins only.
e2e:
	@lacking=(); for need in $(E2E_NEEDS); do \
	  command -v "$${need%:*}" >/dev/null || lacking+=("$${need#*:}"); done; \
	((!$${#lacking[@]})) || \
	  { apt-get update -qq && apt-get install -qq --no-install-recommends "$${lacking[@]}"; } || \
	  echo "*** e2e: apt-get cannot install $${lacking[*]} ***" >&2
	@[ "$$(id -u)" != 0 ] || $(MAKE) programs
	go test -tags e2e -count=1 $(E2EFLAGS) ./e2e/... ./mint/tpm
	@[ -n "$${SPIRE_BIN_DIR:-}" ] || echo '*** e2e/spire: SPIRE_BIN_DIR is not set: NOTHING WAS TESTED AGAINST REAL SPIRE ***' >&2

# One long run at RATE requests a second, with a fault every ten seconds. The test
# bounds itself. SOAKFLAGS='-write docs/benchmarks.md' puts the table there.
soak:
	go test -count=1 -v -timeout 0 -run '^TestSoak$$' ./e2e/chaos -args -soak $(SOAK) -rate $(RATE) $(SOAKFLAGS)

cover:
	go test -coverprofile=coverage.out -coverpkg=./... ./...
	go tool cover -func=coverage.out | tail -n 1

# The tests on the newest dependencies, in a copy. internal/arch is left out: its
# lists describe the dependencies that we ship.
latest:
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	git ls-files -co --exclude-standard -z | tar -c --null -T - -f - | tar -x -C "$$tmp" -f -; \
	cd "$$tmp" && go get -u -t ./... && go mod tidy && \
	go test $$(go list ./... | grep -v /internal/arch$$)

clean:
	rm -rf bin coverage.out
