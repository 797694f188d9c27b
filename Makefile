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

# How many packages are tested at the same time. Their tests run real etcd, containerd and eBPF programs; more packages
# at once slow each other down.
TEST_PARALLEL ?= 2
TEST_TIMEOUT ?= 15m
TEST_FLAGS ?=

# These targets install vagrant, ansible and debootstrap and take minutes. They are not part of test and lint; .ci/run
# calls them.
.PHONY: test-validation test-hosts test-vm test-kernels test-overload test-chaos lint-hosts
.PHONY: build images lab lab-down test test-race fuzz conformance cases bench generate lint format check-generated generate-deps install-deps clean

# Leaves out gRPC's tracing pages, which no program serves. They import html/template, and with it the linker keeps every
# exported method of every type.
TAGS := grpcnotrace

build: images ## build the three programs and the sample images into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -tags '$(TAGS)' -ldflags '$(LDFLAGS)' -o bin/ $(PROGRAMS:%=./cmd/%)

images: ## build the sample images into bin/images
	go run ./lab/images/build -dir bin/images

lab: install-deps build ## run a cluster on this machine with the samples on it
	hack/lab-demo.sh

lab-down: ## remove the cluster and its data
	$(SUDO) bin/xebec lab down --purge

# Packages with much concurrency. Their tests always run with the race detector.
RACE_PACKAGES ?= ./services/apiserver/... ./services/scheduler/... ./services/gateway/... \
  ./internal/client/... ./internal/controller/... ./agent/datapath/...
# Linking test programs without debug information takes a third less time. Stack traces do not need it.
TEST := -p $(TEST_PARALLEL) -timeout $(TEST_TIMEOUT) -ldflags=-w $(TEST_FLAGS)

test: install-deps ## run every test, RACE_PACKAGES with -race; as root, for namespaces, containers and eBPF
	@status=0; \
	  hack/test.sh "$$(go list $(RACE_PACKAGES))" -race $(TEST) || status=$$?; \
	  hack/test.sh "$$(go list ./... | grep -vxFf <(go list $(RACE_PACKAGES)))" $(TEST) || status=$$?; \
	  exit $$status

test-race: install-deps ## run every test with -race; TEST_FLAGS='-run X', RACE='./internal/...' for some
	hack/test.sh "$$(go list $(or $(RACE),./...))" -race $(TEST)

# FUZZ=internal/manifest or FUZZ=FuzzJSON selects some of the targets.
FUZZTIME ?= 1m
fuzz: ## run every fuzz target for FUZZTIME
	hack/fuzz.sh $(FUZZTIME) $(FUZZ)

# The first build of the program with Kubernetes' packages takes a minute. Later builds use Go's build cache.
test-validation: ## compare validation, messages and OpenAPI documents with Kubernetes' own; CORPUS=DIR adds manifests
	XEBEC_VALIDATION=1 CORPUS=$(if $(CORPUS),$(abspath $(CORPUS))) go test -count=1 -timeout $(TEST_TIMEOUT) $(TEST_FLAGS) ./tests/validation ./tests/openapi

# SUITE=trixie installs that release of Debian on the hosts.
test-hosts: install-deps build ## install clusters with Ansible on hosts booted with systemd; as root, about ten minutes
	hack/deps.sh hosts
	XEBEC_HOSTS=1 XEBEC_HOSTS_BIN='$(CURDIR)/bin' XEBEC_HOSTS_SUITE=$(SUITE) CI=true go test -count=1 -timeout 40m -v ./tests/hosts/...

test-overload: install-deps ## run a cluster with too little processor time; as root, ten minutes
	XEBEC_OVERLOAD=1 CI=true go test -count=1 -timeout 30m -v -run TestOverload ./tests/e2e

KILLS ?= 100
test-chaos: ## kill KILLS leaders during rollouts of 50 StatefulSets, DaemonSets and Jobs; a quarter of an hour
	XEBEC_CHAOS=$(KILLS) CI=true go test -count=1 -timeout 90m -v ./tests/chaos

# XEBEC_VM_MASTERS=3 XEBEC_VM_NODES=2 makes a larger cluster. SUITE=trixie as for test-hosts.
test-vm: install-deps build ## run `vagrant up` on emulated virtual machines; as root, ten minutes or more
	hack/deps.sh vm
	XEBEC_VM=1 XEBEC_VM_SUITE=$(SUITE) go test -count=1 -timeout 90m -v ./tests/vm

# KERNELS=6.1 selects one kernel. RUN=TestPrograms only loads all programs, without the tests of the packages.
KERNELS ?= 5.10 6.1 6.12
RUN := .
test-kernels: install-deps ## test the eBPF programs on emulated machines with Debian's kernels; half an hour
	hack/deps.sh kernels
	XEBEC_KERNELS='$(KERNELS)' go test -count=1 -timeout 90m -v -run '$(RUN)' ./tests/kernels

lint-hosts: ## check playbooks, units and the Vagrantfile
	hack/deps.sh hosts
	hack/lint-hosts.sh

# UPDATE=1 updates the tables of docs/conformance.md.
conformance: ## apply and run the Kubernetes manifests of the directory CORPUS; as root
	@[[ -d "$(CORPUS)" ]] || { echo "name a directory of manifests: make conformance CORPUS=DIR" >&2; exit 1; }
	CORPUS=$(abspath $(CORPUS)) go test -count=1 -timeout $(TEST_TIMEOUT) $(TEST_FLAGS) -run 'TestCorpus|TestDocumentation|TestEveryExample' ./tests/conformance $(if $(UPDATE),-update)

cases: build ## run the regression scripts and manifests of the directory CASES on a separate lab; as root
	@if [[ ! -d "$(CASES)" ]]; then echo "no directory of cases: skipped (make cases CASES=DIR)"; else hack/cases.sh "$(CASES)"; fi

bench: ## measure, and print the figures beside Kubernetes'; BENCH='-run gets' for some, as root for the datapath
	hack/deps.sh bench
	CGO_ENABLED=0 go run ./tests/bench $(BENCH)

generate: generate-deps ## generate Go code from the protos and the eBPF sources; commit the result
	$(TOOL) buf generate
	$(TOOL) buf generate --template tests/madeup/buf.gen.yaml
	go generate ./...

# The protos are compared with the last release, or with the previous commit when there is no release.
BREAKING_AGAINST ?= $(shell git describe --tags --abbrev=0 2>/dev/null || git rev-parse --verify -q HEAD~1 || git rev-parse HEAD)
TOOL := go tool -modfile=tools/go.mod

GOLANGCI := go tool -modfile=tools/golangci/go.mod golangci-lint

lint: ## check Go code by .golangci.yml, the protos and shell scripts
	$(GOLANGCI) run
	$(TOOL) buf lint
	$(TOOL) buf format --diff --exit-code
	$(TOOL) buf breaking --against '.git#ref=$(BREAKING_AGAINST)'
	@for script in $$(git ls-files '*.sh') .ci/run; do bash -n $$script; done

format: ## format Go code and order its imports
	$(GOLANGCI) fmt

check-generated: generate ## check that the committed generated files are current
	@git diff --exit-code --stat || { echo "generated files are stale: run make generate and commit"; exit 1; }

generate-deps: ## install what compiling the eBPF programs needs
	hack/deps.sh generate

install-deps: ## install Debian packages that are missing
	hack/deps.sh

clean: ## remove what build made
	rm -rf bin
