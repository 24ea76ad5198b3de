# What there is to type. `make run` and `make test` are all a newcomer needs; Rust and a C compiler are all they ask for
# (the peers that tests talk to are installed by .ci/deps as root, and named otherwise).
.PHONY: run demo check test test-vm test-deploy image reproduce manifests deb release soak bench fuzz deny advisories

run: ; cargo run

# A node, pods and a cluster's DNS in private namespaces, with and without dnslet; needs no root.
demo: ; .ci/deps demo && cargo build --bin dnslet --example demo && cargo run --quiet --example demo

test: ; .ci/deps test && cargo test && $(MAKE) test-vm

# The same network on a Debian kernel, booted in software emulation.
test-vm: ; .ci/deps vm && tests/vm/run

# What is shipped, where it will run: manifests rendered by kubectl, the image under runc, the package in a Debian with systemd.
# Needs root.
test-deploy: image ; .ci/deps deploy && cargo test --test deploy

# The container image, plain and with Debian's iptables, as OCI archives in dist/, without a daemon.
image: ; .ci/deps image && daemonset/image/build && daemonset/image/build iptables

# The images once more from a clone in another place: the same bytes?
reproduce: image ; daemonset/image/reproduce

# daemonset/dnslet.yaml, for those who want one file.
manifests: ; { sed '/^$$/q' daemonset/dnslet.yaml && kubectl kustomize daemonset/overlays/kube-proxy; } >daemonset/.rendered && \
	mv daemonset/.rendered daemonset/dnslet.yaml

# The package for Debian: the program of the image, its man page, completions and units.
PROGRAM = daemonset/image/binary
DEB = --profile dist --target $(shell uname -m)-unknown-linux-musl --output dist/
deb: ; command -v cargo-deb >/dev/null || cargo install --locked cargo-deb --version 3.8.0
	.ci/deps image && $(PROGRAM) && cargo run --quiet --example pages -- target/dist-docs && \
	daemonset/image/licences >target/dist-docs/THIRD-PARTY-LICENSES && \
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) cargo deb --no-build --no-strip $(DEB)

# Everything that is shipped, from a clean directory, and checksums of it.
release: ; rm -rf dist && $(MAKE) image deb && daemonset/tarball && cd dist && sha256sum -- * >SHA256SUMS && ls -l

# Tests whose full size is too long for each change: floods for a minute, an outage of 10,000 names, a million steps at random,
# 2,000 worlds of search lists.
soak: ; .ci/deps test && cargo build --release && DNSLET_FLOOD_BINARY=target/release/dnslet DNSLET_OUTAGE_NAMES=10000 \
	DNSLET_MODEL_STEPS=1000000 DNSLET_WALK_WORLDS=2000 cargo test --test tests -- --nocapture --test-threads 1 flood outage model walks

check: deny ; cargo fmt --check && cargo clippy --all-targets -- -D warnings && cargo test --test tests tidy

deny: ; command -v cargo-deny >/dev/null || cargo install --locked cargo-deny; cargo deny check bans licenses sources

advisories: ; cargo deny check advisories

bench: ; .ci/deps bench && cargo bench --bench throughput

fuzz: ; tests/fuzz/run 600
