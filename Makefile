# What a person types. Each target says what it does, needs no other one to have run, and works
# offline once the Debian packages, the crates and the tools are there.
#
#   make demo       the gateway at work, in network namespaces, in under a minute
#   make test       everything that must hold (root: it makes network namespaces), and `instructions`
#   make test-long  the same with many more random cases, and the tests that take minutes
#   make lint       formatting, clippy, documentation, licences and advisories
#   make bench      one line per goal: figure, target, ok or short; then the profiles of perf/
#   make instructions         instructions of the hot functions against their record, and whom the stages call
#   make instructions-record  writes that record anew
#   make deb        the Debian package, built and inspected
#   make clean      removes what cargo built; target/tools stays

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
TOOLS  := $(CURDIR)/target/tools

# The worlds of tests/ find boringtun-cli and gotatun here.
export BULKHEAD_TOOLS_DIR := $(TOOLS)/bin

# Debian packages, and what each is for:
#   build-essential                      the C and assembly parts of ring
#   iproute2 ethtool iputils-ping        namespaces, veth queues and offloads, ping
#   wireguard-go wireguard-tools iperf3  a client, its configuration, throughput
#   qemu-system-x86                      a machine with the kernel's own WireGuard
#   nftables                             a NAT
PACKAGES_BUILD := build-essential
PACKAGES_WORLD := iproute2 ethtool iputils-ping wireguard-go wireguard-tools iperf3 \
                  qemu-system-x86 nftables
#   valgrind                             counts instructions
PACKAGES_BENCH := valgrind
PACKAGES_DEB   := dpkg-dev

BORINGTUN_VERSION := 0.7.1
GOTATUN_VERSION   := 0.10.2
CARGO_DEB_VERSION := 3.8.0

# The programs of the product and of the worlds.
CRATES := -p bulkhead-control -p bulkhead-datapath -p bulkhead-tests

.PHONY: help demo test test-long lint bench instructions instructions-record deb tools clean
.PHONY: packages-build packages-world packages-bench packages-deb

help:
	@sed -n 's/^#   make/  make/p' Makefile

demo: packages-build packages-world tools
	cargo build --release --bins $(CRATES)
	@"$(TARGET)/release/bulkhead-demo"

# nextest runs each test in a process of its own and kills one that hangs; without it, cargo does.
test: packages-build packages-world packages-bench tools
	cargo build --workspace --bins
	@if cargo nextest --version >/dev/null 2>&1; then \
	  (set -x; cargo nextest run --workspace --no-fail-fast); \
	  (set -x; cargo test --workspace --doc); \
	else \
	  echo "cargo-nextest is not installed; cargo test does"; \
	  (set -x; cargo test --workspace --no-fail-fast -- --test-threads=1); \
	fi
	@$(MAKE) --no-print-directory instructions

test-long: export PROPTEST_CASES := 10000
test-long: packages-build packages-world tools
	cargo build --workspace --bins
	@if cargo nextest --version >/dev/null 2>&1; then \
	  (set -x; cargo nextest run --workspace --no-fail-fast --profile long --run-ignored all); \
	  (set -x; cargo test --workspace --doc); \
	else \
	  echo "cargo-nextest is not installed; cargo test does"; \
	  (set -x; cargo test --workspace --no-fail-fast -- --test-threads=1 --include-ignored); \
	fi

lint: packages-build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
	@if cargo deny --version >/dev/null 2>&1; then \
	  (set -x; cargo deny check bans licenses sources); \
	  if cargo deny fetch db >/dev/null 2>&1; then \
	    (set -x; cargo deny check --disable-fetch advisories); \
	  else \
	    echo "NOT CHECKED: advisories (their database cannot be fetched)"; \
	  fi; \
	else \
	  echo "NOT CHECKED: licences, bans, sources, advisories (cargo install --locked cargo-deny)"; \
	fi

bench: packages-build packages-world tools
	cargo build --release --bins $(CRATES) -p bulkhead-bench -p bulkhead-perf
	@"$(TARGET)/release/bulkhead-bench"
	@"$(TARGET)/release/bulkhead-perf" run perf/profiles/office.toml
	@"$(TARGET)/release/bulkhead-perf" run perf/profiles/flood.toml
	@"$(TARGET)/release/bulkhead-perf" run perf/profiles/revocation.toml

instructions instructions-record: packages-build packages-bench
	cargo build --release -p bulkhead-bench --no-default-features --bin bulkhead-instructions
	"$(TARGET)/release/bulkhead-instructions" $(if $(filter %-record,$@),record,check)

deb: packages-build packages-deb $(TOOLS)/bin/cargo-deb
	cargo build --release --bins -p bulkhead-control -p bulkhead-datapath
	CARGO_TARGET_DIR="$(TARGET)" iso/build-deb "$(TOOLS)/bin/cargo-deb"
	CARGO_TARGET_DIR="$(TARGET)" iso/check-deb

clean:
	[ ! -d "$(TARGET)" ] || find "$(TARGET)" -mindepth 1 -maxdepth 1 ! -name tools -exec rm -rf {} +

tools: $(TOOLS)/bin/boringtun-cli $(TOOLS)/bin/gotatun $(TOOLS)/linux/vmlinuz

# The kernel of the worlds' guest and its first program: unpacked, not installed, so that the machine
# keeps the kernel and the busybox that it has.
$(TOOLS)/linux/vmlinuz: | packages-world
	@echo "unpacking a Debian kernel and busybox into target/tools/linux (once)"
	@mkdir -p "$(TOOLS)"; folder="$$(mktemp -d "$(TOOLS)/unpack.XXXXXX")"; \
	trap 'rm -rf "$$folder"' EXIT; cd "$$folder"; \
	image() { apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: //p' | head -n 1; }; \
	fetch() { apt-get download -qq -o APT::Sandbox::User=root "$$(image)" busybox-static; }; \
	fetch || { apt-get update -qq; fetch; }; \
	for package in *.deb; do dpkg-deb -x "$$package" all; done; \
	mkdir linux; \
	mv all/boot/vmlinuz-* linux/vmlinuz; \
	mv all/lib/modules/* linux/modules; \
	mv all/bin/busybox linux/busybox; \
	rm -rf "$(TOOLS)/linux"; mv linux "$(TOOLS)/linux"

# Tools of tests and packaging, each built once into target/tools.
$(TOOLS)/bin/boringtun-cli: | packages-build
	@echo "installing boringtun-cli $(BORINGTUN_VERSION) into target/tools (once)"
	cargo install boringtun-cli --version $(BORINGTUN_VERSION) --locked --root "$(TOOLS)"

# Only its answers count, not its speed: it is compiled quickly.
$(TOOLS)/bin/gotatun: | packages-build
	@echo "installing gotatun-cli $(GOTATUN_VERSION) into target/tools (once)"
	CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
	  cargo install gotatun-cli --version $(GOTATUN_VERSION) --locked --root "$(TOOLS)"

$(TOOLS)/bin/cargo-deb: | packages-build
	@echo "installing cargo-deb $(CARGO_DEB_VERSION) into target/tools (once)"
	cargo install cargo-deb --version $(CARGO_DEB_VERSION) --locked --root "$(TOOLS)"

packages-build: ; @$(call install,$(PACKAGES_BUILD))
packages-world: ; @$(call install,$(PACKAGES_WORLD))
packages-bench: ; @$(call install,$(PACKAGES_BENCH))
packages-deb:   ; @$(call install,$(PACKAGES_DEB))

# $(call install,PACKAGES): installs those that are missing and says so; silent if none is.
define install
missing=; \
for package in $(1); do \
  status=$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null || true); \
  [ "$$status" = installed ] || missing="$$missing $$package"; \
done; \
if [ -n "$$missing" ]; then \
  echo "installing Debian packages:$$missing"; \
  if [ "$$(id -u)" != 0 ]; then echo "run make as root, or install them yourself" >&2; exit 1; fi; \
  export DEBIAN_FRONTEND=noninteractive; \
  apt-get update -qq; \
  apt-get install -y -qq --no-install-recommends $$missing; \
fi
endef
