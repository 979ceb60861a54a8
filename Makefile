# Targets for people; `make help` lists them. Only Go, git and make are needed.

export CGO_ENABLED = 0
GO ?= go
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2
PLATFORMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.DEFAULT_GOAL := help
.PHONY: help build demo test test-race test-long fuzz check bench plugins kernels generate

help: ## list the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  \1\t\2/' | expand -t 14

build: ## build bin/ra
	$(GO) build -trimpath -o bin/ra ./host/cmd/ra

demo: build ## find a needle in a long document by retrieval, full and static attention
	$(GO) run ./examples/quickstart -ra bin/ra

test: ## run the tests (a few minutes)
	$(GO) test ./...
	$(MAKE) --no-print-directory test-race

# The race detector needs cgo and a C compiler.
test-race: ## run the tests of the concurrent packages under the race detector
	@if command -v $${CC:-cc} >/dev/null 2>&1; then \
		echo "$(GO) test -race (concurrent packages)"; \
		CGO_ENABLED=1 $(GO) test -race -short ./host/sched ./host/kv ./host/compute ./host/retrieval/... ./host/attention ./host/engine ./host/bench ./host/plugin/... ./sdk/process; \
	else \
		echo "skipped: test-race needs a C compiler, and none is installed"; \
	fi

test-long: ## run what takes longer: soak tests, accuracy of the reference model, fuzzing
	RA_LONG=1 $(GO) test -timeout 60m ./...
	$(MAKE) --no-print-directory test-levels fuzz

# The tests of host/kernel go through all levels by themselves. A cached result
# would not know of the variable.
.PHONY: test-levels
test-levels: ## run what computes with the kernels of every level (the best one where the CPU lacks a level)
	@for level in generic avx2 avx512 avx512vnni; do \
		echo "RA_KERNEL=$$level"; RA_KERNEL=$$level $(GO) test -count=1 ./host/kv ./host/compute ./host/retrieval/... ./host/attention ./host/engine || exit 1; \
	done

# All levels on a CPU with every feature, then the first one on a CPU that has
# no more than it needs. Emulation is slow: what is about the accuracy of
# estimates and of searches, and not about the kernels' forms, is left out.
.PHONY: test-arm64
test-arm64: ## run the tests of the kernels and of what calls them for linux/arm64, emulated by qemu-user
	@if command -v qemu-aarch64 >/dev/null 2>&1; then \
		echo "$(GO) test (linux/arm64, emulated)"; \
		export GOOS=linux GOARCH=arm64; \
		$(GO) test -short -skip '^TestEstimateError$$|^TestTwoStage|^TestScan$$/^(generic|neon)$$|^Test(KNN|MatMulBlocks|AttendCausalGroups)$$/^generic$$' -exec 'qemu-aarch64 -cpu max' \
			./host/kernel ./host/kv ./host/compute ./host/attention && \
		$(GO) test -short -run '/^neon$$' -skip '^TestEstimateError$$|^TestTwoStage|^TestScan$$|^TestKNN' -exec 'qemu-aarch64 -cpu cortex-a53' ./host/kernel; \
	else \
		echo "skipped: test-arm64 needs qemu-aarch64 (package qemu-user), and it is not installed"; \
	fi

FUZZTIME ?= 20s
fuzz: ## run every fuzz target for FUZZTIME
	@for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
		done; \
	done

check: ## formatting, vet, lint, generated files current, cross-builds
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "run gofmt on:"; echo "$$unformatted"; exit 1; fi
	@stray=$$(grep -rl '"unsafe"' --include='*.go' . | grep -vE '^\./(host/(kernel|kv|plugin)|sdk/(go|process)|bench)/' || true); if [ -n "$$stray" ]; then echo "unsafe belongs in the kernels, the store and the plugin boundary, not in:"; echo "$$stray"; exit 1; fi
	$(GO) mod tidy -diff
	$(GO) vet ./...
	GOOS=linux GOARCH=arm64 $(GO) vet ./host/kernel
	$(GO) run $(STATICCHECK) ./...
	cd $(KERNEL_GEN) && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./... && $(GO) test ./...
	cd $(CONTRACT_GEN) && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...
	GOOS=wasip1 GOARCH=wasm $(GO) vet ./sdk/go ./plugins/search/... ./plugins/policy/...
	@for p in $(PLATFORMS); do echo "build $$p"; GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -o /dev/null ./host/cmd/ra || exit 1; done
	$(MAKE) --no-print-directory generated
	$(MAKE) --no-print-directory test-arm64

.PHONY: generated
generated: generate ## fail when generated files are not current
	@git diff --exit-code --stat -- plugins/dist sdk 'host/kernel/*_amd64.*' 'host/kernel/*_arm64.*' host/internal/peak || { echo "generated files are not current: commit what 'make generate' wrote"; exit 1; }

generate: modules abi contract plugins kernels ## rebuild all generated files

# What a process plugin in Go needs, for `ra plugin new`.
.PHONY: modules
modules: ## rewrite the list of the modules of sdk/process
	@GOWORK=off GOOS=linux $(GO) list -deps -f '{{with .Module}}{{if .Version}}{{.Path}} {{.Version}}{{end}}{{end}}' ./sdk/process | LC_ALL=C sort -u > sdk/modules/require.txt
	@awk 'NR==FNR { want[$$1 " " $$2]; next } { v = $$2; sub("/go.mod$$", "", v); if (($$1 " " v) in want) print }' sdk/modules/require.txt go.sum > sdk/modules/sums.txt

.PHONY: abi
abi: ## rebuild what follows from the plugin ABI's description
	$(GO) run ./sdk/abi/gen

plugins: ## rebuild the built-in plugins under plugins/dist
	GO=$(GO) ./plugins/build.sh

KERNEL_GEN = host/kernel/internal/gen
KERNEL_FILES = rows_avx2 rows_avx512 scan_avx2 scan_avx512 elementwise_avx2 elementwise_avx512 gemm_avx2 gemm_avx512 \
	codes_avx2 codes_avx512 codes_avx512vnni

# The generator is a module of its own: the assembler is no dependency of ra.
kernels: ## rebuild the assembly of host/kernel
	@cd $(KERNEL_GEN) && GOWORK=off $(GO) build -o gen . && for file in $(KERNEL_FILES); do \
		./gen -part $${file%_*} -level $${file#*_} -pkg kernel \
			-out ../../$${file}_amd64.s -stubs ../../$${file}_amd64.go || exit 1; \
	done; for level in avx2 avx512; do \
		./gen -part peak -level $$level -pkg peak -out ../../../internal/peak/$${level}_amd64.s -stubs ../../../internal/peak/$${level}_amd64.go || exit 1; \
	done; rm gen
	@cd $(KERNEL_GEN)/neon && GOWORK=off $(GO) run . -out ../../../neon_arm64.s -stubs ../../../neon_arm64.go

CONTRACT_GEN = sdk/process/v1/internal/gen

.PHONY: contract
contract: ## rebuild the messages of the process contract, for Go and Python
	@cd $(CONTRACT_GEN) && GOWORK=off $(GO) run . -proto ../.. -go ../.. -python ../../../../python/ra_plugin/messages.py

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...

PEERS = bench/peers
.PHONY: bench-peers
bench-peers: ## compare exact search with faiss (sets up Python in bench/peers/.venv)
	@test -x $(PEERS)/.venv/bin/python || python3 -m venv $(PEERS)/.venv
	@$(PEERS)/.venv/bin/python -m pip install --quiet --disable-pip-version-check -r $(PEERS)/requirements.txt
	$(GO) build -trimpath -o bin/ra-peers ./$(PEERS)/ours
	$(PEERS)/.venv/bin/python $(PEERS)/compare.py --ours bin/ra-peers --out bin/peers.json
