# shellcheck shell=bash
# `./dev lint`: what isn't a test but must hold: formatting, clippy, documentation, dependencies.
source scripts/install.sh

lint() {
    require_root
    need_packages "${BUILD_PACKAGES[@]}"
    need_rust
    say "formatting"
    cargo fmt --all --check
    say "clippy"
    cargo clippy --workspace --all-targets -- -D warnings
    say "documentation"
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items
    say "licences, bans and sources of dependencies"
    need_cargo_deny
    deny check licenses bans sources
    check_advisories
}

deny() { "$(cargo_deny_dir)/bin/cargo-deny" --workspace --locked "$@"; }

# The advisory database is a git repository on the network. Where it can't be fetched, that is said and no failure;
# where it can, an advisory is one.
check_advisories() {
    local log
    log=$(mktemp)
    if deny fetch db >"$log" 2>&1; then
        rm -f "$log"
        say "advisories"
        deny check --disable-fetch advisories
    else
        warn "advisories were NOT checked, their database can't be fetched: $(grep -m 1 -iE 'error|failed' "$log" || true)"
        rm -f "$log"
    fi
}
