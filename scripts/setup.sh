#!/usr/bin/env bash
# Installs what this checkout needs and does not have, then gets out of the way: with nothing to do
# it prints nothing and asks no network. `make` runs it before every target.
#
#   scripts/setup.sh dev     what building and running Nearhop needs
#   scripts/setup.sh test    that, and the peers, clients and models the tests use (the default)
#
# Four things: system packages, the ONNX Runtime library in .ort/, the Python clients in .venv/, and
# models to test with in .models/. Rust itself is not among them: rustup belongs to its user.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

ort_release=1.32.0
scratch=      # a folder of half-made things, gone on every way out
service_guard= # policy-rc.d, while we install

say() { printf 'setup: %s\n' "$*"; }

# fail WHAT COMMAND: what is missing, and the one command that gets it.
fail() {
    printf 'setup: %s\n' "$1" >&2
    printf 'setup: run    %s\n' "$2" >&2
    exit 1
}

cleanup() {
    if [[ -n $scratch ]]; then rm -rf "$scratch"; fi
    if [[ -n $service_guard ]]; then rm -f "$service_guard"; fi
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

has() { command -v "$1" >/dev/null 2>&1; }

sha256() { if has sha256sum; then sha256sum; else shasum -a 256; fi | cut -d' ' -f1; }

# ---- system packages -------------------------------------------------------------------------

build_packages=(build-essential cmake pkg-config libssl-dev python3 python3-venv)
test_packages=(nginx-light wrk curl openssl nghttp2-client prometheus bind9-dnsutils gdnsd tor-geoipdb iproute2 redis-server redis-tools)

# The program a package is wanted for. It may as well come from another package (nginx-full,
# pkgconf) or from no package at all. Empty: only the package itself will do.
program_of() {
    case $1 in
    cmake | pkg-config | python3 | wrk | curl | openssl) echo "$1" ;;
    nginx-light) echo nginx ;;
    nghttp2-client) echo h2load ;;
    prometheus) echo promtool ;;
    bind9-dnsutils) echo dig ;;
    gdnsd) echo gdnsd ;;
    iproute2) echo ip ;;
    redis-server) echo redis-server ;;
    redis-tools) echo redis-cli ;;
    esac
}

has_program() {
    local program
    program=$(program_of "$1")
    # Debian keeps servers in /usr/sbin, which is not on everybody's PATH.
    [[ -n $program ]] && { has "$program" || [[ -x /usr/sbin/$program ]]; }
}

debian_packages() {
    local installed package missing=()
    # One call for all: it fails when one is unknown, and still prints the rest.
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null || true)
    for package in "$@"; do
        if [[ $'\n'$installed$'\n' != *$'\n'"installed $package"$'\n'* ]] && ! has_program "$package"; then
            missing+=("$package")
        fi
    done
    if [[ ${#missing[@]} -eq 0 ]]; then return; fi

    if [[ $(id -u) -ne 0 ]]; then
        fail "Debian packages are missing: ${missing[*]}" "sudo apt-get install -y ${missing[*]}"
    fi
    say "installing Debian packages: ${missing[*]}"
    # A freshly installed nginx starts itself and takes port 80, Prometheus takes 9090, Redis 6379. The
    # tests run their own copies, so services are held back while we install, and are not started at
    # the next boot either.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        service_guard=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$service_guard"
        chmod 755 "$service_guard"
    fi
    export DEBIAN_FRONTEND=noninteractive
    if ! {
        apt-get -qq -o DPkg::Lock::Timeout=120 update &&
            apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install -y --no-install-recommends "${missing[@]}"
    }; then
        fail "the packages could not be installed: ${missing[*]}" "apt-get update && apt-get install -y ${missing[*]}"
    fi
    local server
    for server in nginx prometheus gdnsd redis-server; do
        if [[ " ${missing[*]} " == *" $server"* ]]; then
            update-rc.d "$server" disable >/dev/null 2>&1 || true
        fi
    done
}

# Without dpkg nothing is installed for anybody; what is missing is named. Nobody has gdnsd for macOS,
# and its test is skipped there.
other_systems() {
    local package missing=() system
    for package in "$@"; do
        case $package in
        build-essential) { has cc && has c++; } || missing+=("a C and C++ compiler") ;;
        libssl-dev) { has pkg-config && pkg-config --exists openssl; } || missing+=("OpenSSL's headers") ;;
        python3-venv) { has python3 && python3 -c 'import ensurepip, venv' 2>/dev/null; } || missing+=("Python's venv module") ;;
        tor-geoipdb) [[ $(uname -s) == Darwin || -f /usr/share/tor/geoip ]] || missing+=("Tor's lists of address ranges in /usr/share/tor") ;;
        gdnsd) [[ $(uname -s) == Darwin ]] || has gdnsd || [[ -x /usr/sbin/gdnsd ]] || missing+=("gdnsd") ;;
        # Network namespaces, which only Linux has.
        iproute2) [[ $(uname -s) != Linux ]] || has_program "$package" || missing+=("$(program_of "$package")") ;;
        *) has_program "$package" || missing+=("$(program_of "$package")") ;;
        esac
    done
    if [[ ${#missing[@]} -eq 0 ]]; then return; fi

    system="$(uname -s) on $(uname -m)"
    printf 'setup: missing: %s\n' "$(printf '%s, ' "${missing[@]}" | sed 's/, $//')" >&2
    if [[ $(uname -s) == Darwin ]]; then
        fail "packages are installed for you on Debian and Ubuntu only; this is $system, where Homebrew has them" \
            "xcode-select --install; brew install cmake pkg-config openssl@3 python nginx wrk curl nghttp2 prometheus bind redis"
    fi
    fail "packages are installed for you on Debian and Ubuntu only; this is $system: install them its own way" \
        "make setup    (again, afterwards)"
}

packages() {
    has cargo || fail "Rust is missing: cargo is not on the PATH" "see https://rustup.rs, then make setup again"
    if has dpkg-query; then debian_packages "$@"; else other_systems "$@"; fi
}

# ---- ONNX Runtime ----------------------------------------------------------------------------

# The library is taken from the Python wheel: the one build of it that is published for every
# platform, small (28 MB) and free of anything but libc and libstdc++. It is loaded at run time, so
# building needs none of this. Each line: the wheel's platform, the library, its sha256.
onnx_runtime() {
    local platform library link sha
    if [[ -n ${ORT_DYLIB_PATH:-} ]]; then
        [[ -f $ORT_DYLIB_PATH ]] ||
            fail "ORT_DYLIB_PATH names a file that is not there: $ORT_DYLIB_PATH" "unset ORT_DYLIB_PATH; make setup    (fetches one into .ort/)"
        return
    fi
    case "$(uname -s)-$(uname -m)" in
    Linux-x86_64)
        platform=manylinux_2_28_x86_64 library=libonnxruntime.so.$ort_release link=libonnxruntime.so
        sha=6c1585d1bbf45b0712ea4a21b705c5fcb4ba04ff2e30f1fbf81a49faf658638f
        ;;
    Linux-aarch64 | Linux-arm64)
        platform=manylinux_2_28_aarch64 library=libonnxruntime.so.$ort_release link=libonnxruntime.so
        sha=49852228a93995158b2a813d4df487d47a1b76b0eaa894507ef49e91b6d7954a
        ;;
    Darwin-arm64)
        platform=macosx_14_0_arm64 library=libonnxruntime.$ort_release.dylib link=libonnxruntime.dylib
        sha=fa585fabbea65b823b9a8f7e27d46aee3989d1be7e36b528203d3a1fd613aae7
        ;;
    *)
        fail "no ONNX Runtime $ort_release library is published for $(uname -s) on $(uname -m); any build of 1.24 or newer will do" \
            "export ORT_DYLIB_PATH=/path/to/libonnxruntime; make setup"
        ;;
    esac

    # The stamp is written last, so a run that was cut short starts over.
    local stamp=.ort/stamp want="$ort_release $platform $sha"
    if [[ -f .ort/$library && -e .ort/$link && -f $stamp && $(<"$stamp") == "$want" ]]; then return; fi

    say "fetching ONNX Runtime $ort_release ($platform) into .ort/"
    mkdir -p .ort
    scratch=$(mktemp -d .ort/fetch.XXXXXX) # beside its goal, so that mv is one atomic rename
    # Debian's Python has no pip; that of a fresh environment is always there. The library has
    # nothing to do with the Python it is packed for: naming one version makes the choice the same
    # everywhere.
    if ! {
        python3 -m venv "$scratch/venv" &&
            "$scratch/venv/bin/python" -m pip --disable-pip-version-check download --quiet --no-deps \
                --only-binary=:all: --implementation cp --python-version 3.12 --platform "$platform" \
                --dest "$scratch" "onnxruntime==$ort_release"
    }; then
        fail "the ONNX Runtime library could not be fetched; with a copy of your own, set ORT_DYLIB_PATH instead" "make setup    (again, when the package index answers)"
    fi
    python3 - "$scratch" "$library" <<'PY' || fail "the wheel does not hold what it should: $library" "make setup"
import pathlib, sys, zipfile

scratch, library = pathlib.Path(sys.argv[1]), sys.argv[2]
[wheel] = scratch.glob("*.whl")
with zipfile.ZipFile(wheel) as packed:
    # Its licence and those of what it contains go wherever the library goes.
    for name in (f"capi/{library}", "LICENSE", "ThirdPartyNotices.txt"):
        (scratch / pathlib.Path(name).name).write_bytes(packed.read(f"onnxruntime/{name}"))
PY
    local found
    found=$(sha256 <"$scratch/$library")
    if [[ $found != "$sha" ]]; then
        rm -f "$scratch/$library"
        fail "$library is not the file it should be, and was deleted: sha256 $found, expected $sha" "make setup    (again; if it repeats, somebody changed the file on its way)"
    fi
    chmod 755 "$scratch/$library"
    ln -s "$library" "$scratch/$link"
    mv -f "$scratch/LICENSE" "$scratch/ThirdPartyNotices.txt" "$scratch/$library" "$scratch/$link" .ort/
    printf '%s\n' "$want" >"$scratch/stamp"
    mv -f "$scratch/stamp" "$stamp"
    rm -rf "$scratch"
    scratch=
}

# ---- the clients the tests use ---------------------------------------------------------------

# Made anew, never upgraded in place, whenever the list changes: what is in it is what the list says.
test_clients() {
    local stamp=.venv/requirements.sha256 want
    want=$(sha256 <tests/requirements.txt)
    if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$want" ]]; then return; fi

    say "making .venv/ with the test clients of tests/requirements.txt"
    rm -rf .venv
    if ! {
        python3 -m venv .venv &&
            .venv/bin/python -m pip --disable-pip-version-check install --quiet -r tests/requirements.txt
    }; then
        fail "the test clients could not be installed into .venv/" "make setup    (again, when the package index answers)"
    fi
    printf '%s\n' "$want" >"$stamp"
}

# ---- the models the tests load ---------------------------------------------------------------

# Too large to commit, or in so many layouts that they would only hide the one that matters. Both
# scripts check what they made. All are made anew when any script of theirs changes, and the stamp
# is written last, so a run that was cut short starts over.
test_models() {
    local python=.models/venv/bin/python embedder=.models/all-minilm-l6-v2 stamp=.models/stamp want
    want=$(cat scripts/models/requirements.txt scripts/models/*.py | sha256)
    if [[ -f $embedder/model.onnx && -f $stamp && $(<"$stamp") == "$want" ]]; then return; fi

    say "making the tests' models in .models/ (downloads 150 MB)"
    rm -rf .models
    mkdir .models
    if ! {
        python3 -m venv .models/venv &&
            "$python" -m pip --disable-pip-version-check install --quiet -r scripts/models/requirements.txt
    }; then
        fail "what the tests' models are made with could not be installed into .models/venv/" "make setup    (again, when the package index answers)"
    fi
    "$python" scripts/models/tiny.py --layouts .models ||
        fail "scripts/models/tiny.py could not make the small models" "make setup    (again; it starts over)"
    "$python" scripts/models/minilm.py "$embedder" >/dev/null ||
        fail "scripts/models/minilm.py could not make the embedder" "make setup    (again, when the package index answers)"
    printf '%s\n' "$want" >"$stamp"
}

case ${1:-test} in
dev)
    packages "${build_packages[@]}"
    onnx_runtime
    ;;
test)
    packages "${build_packages[@]}" "${test_packages[@]}"
    onnx_runtime
    test_clients
    test_models
    ;;
*)
    printf 'usage: scripts/setup.sh [dev|test]\n' >&2
    exit 2
    ;;
esac
