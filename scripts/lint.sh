#!/usr/bin/env bash
# What .ci/run checks without running anything: format, clippy, dependencies, docs, shell syntax.
source "$(dirname "$0")/steps.sh"
scripts/setup.sh

deny_version=0.20.2
tools=$(target_dir)/tools

deny() {
    # Its own folder: the user's cargo bin is not ours to change. Unoptimised builds in a minute.
    if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -q "$deny_version"; then
        CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$tools/build" \
            cargo install --quiet --locked --debug --root "$tools" --version "$deny_version" cargo-deny
        rm -rf "$tools/build"
    fi
    "$tools/bin/cargo-deny" --log-level error check licenses bans sources
}

shell_syntax() {
    local script
    for script in scripts/*.sh .ci/run; do
        bash -n "$script"
    done
}

docs() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --lib --document-private-items
}

without_gst() {
    cargo clippy --locked --no-default-features --all-targets -- -D warnings
    cargo clippy --locked --no-default-features --features cuda --all-targets -- -D warnings
}

step "format" cargo fmt --check
step "shell syntax" shell_syntax
step "clippy" cargo clippy --locked --all-targets -- -D warnings
step "clippy without GStreamer" without_gst
step "licences, bans, sources" deny
step "docs" docs
