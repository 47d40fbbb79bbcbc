#!/usr/bin/env bash
# Asks cargo-deny for duplicates, licences and sources. Where it is not installed, says so and checks
# at least the licences: building it takes minutes, too long to ask of everybody.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if command -v cargo-deny >/dev/null 2>&1; then
    # Without the graphs, or the known duplicates of pingora's tree fill the screen.
    exec cargo deny --locked check --hide-inclusion-graph bans licenses sources
fi
cat >&2 <<'TEXT'
**********************************************************************************
 cargo-deny is not installed: bans and sources were NOT checked, licences by
 scripts/licences.py instead. To have it:   cargo install --locked cargo-deny
**********************************************************************************
TEXT
cargo metadata --format-version 1 --locked | python3 scripts/licences.py
