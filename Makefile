# `make lab` builds everything and brings up a whole cluster on this machine; `make lab-down` removes it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

MODULE := github.com/xebec-project/xebec
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT ?= $(shell git rev-parse HEAD 2>/dev/null)
LDFLAGS := -s -w -X $(MODULE)/internal/version.version=$(VERSION) -X $(MODULE)/internal/version.commit=$(COMMIT)
PROGRAMS := xebec xebecd xebec-agent
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Packages whose tests drive real etcd, containerd and kernels at once: more of them side by side only slow each other.
TEST_PARALLEL ?= 2
TEST_TIMEOUT ?= 15m
TEST_FLAGS ?=

# These install vagrant, ansible and debootstrap and take minutes, which is for whoever calls them to say: test and lint leave
# them out, and .ci/run calls them.
.PHONY: test-validation test-hosts test-vm test-kernels test-overload lint-hosts
.PHONY: build images lab lab-down test test-race fuzz conformance cases bench generate lint format check-generated generate-deps install-deps clean

# Without gRPC's tracing pages, which nothing serves: with them come templates, and with templates every method of every type.
TAGS := grpcnotrace

build: images ## the three programs and the sample images, into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

images: ## the sample images, into bin/images
	go run ./lab/images/build -dir bin/images

lab: install-deps build ## a cluster on this machine with the samples on it
	hack/lab-demo.sh

lab-down: ## remove the cluster and its data
	$(SUDO) bin/xebec lab down --purge

# Packages with much concurrency, whose tests run under the race detector each time.
RACE_PACKAGES ?= ./services/apiserver/... ./services/scheduler/... ./services/gateway/... \
  ./internal/client/... ./internal/controller/... ./agent/datapath/...
# Test programs are linked without debug information, which takes a third less time; stack traces do not need it.
TEST := -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) -ldflags=-w $(TEST_FLAGS)

test: install-deps ## every test, RACE_PACKAGES with -race; as root, because namespaces, containers and eBPF are real
	@status=0; \
	  hack/test.sh "$$(go list $(RACE_PACKAGES))" -race $(TEST) || status=$$?; \
	  hack/test.sh "$$(go list ./... | grep -vxFf <(go list $(RACE_PACKAGES)))" $(TEST) || status=$$?; \
	  exit $$status

test-race: install-deps ## every test with -race; TEST_FLAGS='-run X', RACE='./internal/...' for some
	hack/test.sh "$$(go list $(or $(RACE),./...))" -race $(TEST)

# FUZZ=internal/manifest or FUZZ=FuzzJSON for some of them.
FUZZTIME ?= 1m
fuzz: ## every fuzz target for FUZZTIME
	hack/fuzz.sh $(FUZZTIME) $(FUZZ)

# The program of Kubernetes' packages takes a minute to build at first, and seconds from Go's build cache.
test-validation: ## compared with Kubernetes' own: verdicts, messages and OpenAPI documents; CORPUS=DIR adds manifests
	XEBEC_VALIDATION=1 CORPUS=$(if $(CORPUS),$(abspath $(CORPUS))) go test -count=1 -timeout $(TEST_TIMEOUT) $(TEST_FLAGS) ./tests/validation ./tests/openapi

# Hosts of another release of Debian: SUITE=trixie.
test-hosts: install-deps build ## clusters by Ansible on hosts booted with systemd; as root, about ten minutes
	hack/deps.sh hosts
	XEBEC_HOSTS=1 XEBEC_HOSTS_BIN='$(CURDIR)/bin' XEBEC_HOSTS_SUITE=$(SUITE) CI=true go test -count=1 -timeout 40m -v ./tests/hosts/...

test-overload: install-deps ## a cluster that gets too little processor time, for minutes; as root, ten minutes
	XEBEC_OVERLOAD=1 CI=true go test -count=1 -timeout 30m -v -run TestOverload ./tests/e2e

# For more than the smallest cluster: XEBEC_VM_MASTERS=3 XEBEC_VM_NODES=2. SUITE=trixie is here too.
test-vm: install-deps build ## `vagrant up` on emulated virtual machines; as root, ten minutes or more
	hack/deps.sh vm
	XEBEC_VM=1 XEBEC_VM_SUITE=$(SUITE) go test -count=1 -timeout 90m -v ./tests/vm

# KERNELS=6.1 for one of them; RUN=TestPrograms for whether all programs load, without the packages' own tests.
KERNELS ?= 5.10 6.1 6.12
RUN := .
test-kernels: install-deps ## the eBPF programs on emulated machines with Debian's kernels; half an hour
	hack/deps.sh kernels
	XEBEC_KERNELS='$(KERNELS)' go test -count=1 -timeout 90m -v -run '$(RUN)' ./tests/kernels

lint-hosts: ## playbooks, units and the Vagrantfile
	hack/deps.sh hosts
	hack/lint-hosts.sh

# UPDATE=1 writes the tables of docs/conformance.md anew.
conformance: ## manifests that others wrote for Kubernetes, of the directory CORPUS; as root, to run them too
	@[[ -d "$(CORPUS)" ]] || { echo "name a directory of manifests: make conformance CORPUS=DIR" >&2; exit 1; }
	CORPUS=$(abspath $(CORPUS)) go test -count=1 -timeout $(TEST_TIMEOUT) $(TEST_FLAGS) -run 'TestCorpus|TestDocumentation|TestEveryExample' ./tests/conformance $(if $(UPDATE),-update)

cases: build ## scripts and manifests of the directory CASES that failed once, on a lab of their own; as root
	@if [[ ! -d "$(CASES)" ]]; then echo "no directory of cases: skipped (make cases CASES=DIR)"; else hack/cases.sh "$(CASES)"; fi

bench: ## figures, printed beside Kubernetes'; BENCH='-run gets' for some of them, as root for the datapath's
	hack/deps.sh bench
	CGO_ENABLED=0 go run ./tests/bench $(BENCH)

generate: generate-deps ## Go from the protos and from the eBPF sources; committed
	$(TOOL) buf generate
	$(TOOL) buf generate --template tests/madeup/buf.gen.yaml
	go generate ./...

# The protos are held against the last release, or the last commit before there is one.
BREAKING_AGAINST ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --verify -q HEAD~1 || git rev-parse HEAD)
TOOL := go tool -modfile=tools/go.mod

GOLANGCI := go tool -modfile=tools/golangci/go.mod golangci-lint

lint: ## Go by .golangci.yml, the protos, shell scripts
	$(GOLANGCI) run
	$(TOOL) buf lint
	$(TOOL) buf format --diff --exit-code
	$(TOOL) buf breaking --against '.git#ref=$(BREAKING_AGAINST)'
	@for script in $$(git ls-files '*.sh') .ci/run; do bash -n $$script; done

format: ## Go's formatting and the order of imports
	$(GOLANGCI) fmt

check-generated: generate ## that what is committed is what generate makes
	@git diff --exit-code --stat || { echo "generated files are stale: run make generate and commit"; exit 1; }

generate-deps: ## what compiling the eBPF programs needs
	hack/deps.sh generate

install-deps: ## Debian's packages that are missing
	hack/deps.sh

clean: ## what build made
	rm -rf bin
