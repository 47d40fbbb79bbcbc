"""Chooses what to train on: files of pinned crates with permissive licences.

    python corpus.py CRATES OUT             CRATES holds archives, NAME-VERSION.crate
    python corpus.py CRATES OUT --fetch     cargo first downloads those that CRATES lacks
    python corpus.py CRATES --pin           lock lines for the archives in CRATES, to stdout

`corpus.lock` has a line for each crate: name, version, sha256 of its archive, licence. An archive
that differs from its line is an error. OUT gets train.jsonl, held_out.jsonl and manifest.json, the
same bytes for the same archives. Nothing is built and no code of a crate is run.
"""

import argparse
import collections
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[3] / "scripts"))

from licences import permitted  # noqa: E402

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-1-Clause", "BSD-2-Clause"),
    *("BSD-3-Clause", "ISC", "MIT", "MIT-0", "Unlicense", "Zlib"),
}
# Tables and other people's headers, by the names that such crates have.
BINDINGS = re.compile(
    r"-sys(-|$)|^windows|^winapi|^(web|js)-sys|bindings|^objc|^linux-raw|^icu_|^unicode-|^libc$"
    r"|^core-foundation|^security-framework|^jni|^ndk|^encoding_rs|^codepage|^generic-array|^typenum"
)
GENERATED = re.compile(
    r"(?i)@generated|auto(matically)?[- ]?generated|machine generated|do not edit|rust-bindgen"
)
NUMBERS = re.compile(r"0x[0-9a-fA-F]{2,}|\d{4,}")

FILE_BYTES = range(300, 120_000)
CRATE_BYTES_MAX = 1_500_000  # no crate may own the corpus
HELD_OUT_ONE_IN = 200


def why_not_crate(name: str, licence: str) -> str | None:
    """Why nothing of a crate is taken, None if some is."""
    try:
        if not permitted(licence, PERMISSIVE):
            return "crate's licence"
    except ValueError:  # not SPDX: nobody can say what it permits
        return "crate's licence"
    return "crate of bindings" if BINDINGS.search(name) else None


def why_not(content: bytes) -> str | None:
    """Why a file is nothing to learn from, None if it is."""
    if len(content) not in FILE_BYTES:
        return "size"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    lines = text.split("\n")
    if max(map(len, lines)) > 300 or len(text) / len(lines) < 12:
        return "line lengths"
    if GENERATED.search(text[:600]):
        return "generated"
    if len(NUMBERS.findall(text)) > len(text) / 120:
        return "table"
    if len(content) - len(text) > len(text) / 25:
        return "not ASCII"
    return None


def pins(lock: pathlib.Path) -> Iterator[tuple[str, str, str, str]]:
    """Name, version, sha256 and licence of each crate."""
    for line in lock.read_text().splitlines():
        if line and not line.startswith("#"):
            name, version, digest, licence = line.split(" ", 3)
            yield name, version, digest, licence


def members(archive: pathlib.Path) -> dict[str, bytes]:
    """A crate's Rust files and its manifest, by their paths within it."""
    with tarfile.open(archive) as tar:
        paths = {entry: entry.name.partition("/")[2] for entry in tar if entry.isfile()}
        wanted = {e: p for e, p in paths.items() if p == "Cargo.toml" or p.endswith(".rs")}
        return {path: tar.extractfile(entry).read() for entry, path in wanted.items()}


def licence_of(manifest: bytes) -> str:
    return tomllib.loads(manifest.decode())["package"].get("license", "")


def fetch(name: str, version: str, crates: pathlib.Path) -> None:
    """Has cargo download one crate, with what it depends on, and keeps its archive.

    Each has a manifest of its own: all in one would have to agree on versions, and do not. The
    archive is taken rather than `cargo vendor`'s folder because the pinned sha256 is the archive's.
    """
    home = crates / ".cargo-home"
    with tempfile.TemporaryDirectory() as project:
        manifest = pathlib.Path(project) / "Cargo.toml"
        manifest.write_text(
            '[package]\nname = "corpus"\nversion = "0.0.0"\n[lib]\npath = "lib.rs"\n'
            f'[dependencies.{name}]\nversion = "={version}"\ndefault-features = false\n'
        )
        manifest.with_name("lib.rs").touch()
        subprocess.run(
            ["cargo", "fetch", "--quiet", "--manifest-path", manifest],
            env=os.environ | {"CARGO_HOME": str(home)},
        )
    for found in home.glob(f"registry/cache/*/{name}-{version}.crate"):
        shutil.copy(found, crates)


def choose(given: argparse.Namespace) -> None:
    crates, missing, left_out = {}, [], collections.Counter()
    rows = {"train": [], "held_out": []}
    seen: set[bytes] = set()
    for name, version, digest, licence in pins(given.lock):
        crate = f"{name}-{version}"
        archive = given.crates / f"{crate}.crate"
        if not archive.exists() and given.fetch:
            fetch(name, version, given.crates)
        if not archive.exists():
            missing.append(crate)
            continue
        if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
            raise SystemExit(f"{archive}: not the archive of {given.lock}")
        files = members(archive)
        said = licence_of(files.pop("Cargo.toml"))
        if said != licence:
            raise SystemExit(f"{archive}: its licence is {said!r}, the lock says {licence!r}")
        if refusal := why_not_crate(name, licence):
            left_out[refusal] += 1
            continue

        taken = []
        for path, content in sorted(files.items()):
            signature = hashlib.sha256(b" ".join(content.split())).digest()
            reason = why_not(content) or ("duplicate" if signature in seen else None)
            if reason is None and sum(taken) + len(content) > CRATE_BYTES_MAX:
                reason = "crate is large"
            if reason:
                left_out[reason] += 1
                continue
            seen.add(signature)
            taken.append(len(content))
            # By the path without the version: two versions of a file stay on one side.
            side = hashlib.sha256(f"{name}/{path}".encode()).digest()
            held_out = int.from_bytes(side[:4]) % given.held_out_one_in == 0
            row = {"file": f"{crate}/{path}", "text": content.decode()}
            rows["held_out" if held_out else "train"].append(row)
        if taken:
            facts = {"licence": licence, "sha256": digest, "files": len(taken), "bytes": sum(taken)}
            crates[crate] = facts

    if missing and not given.allow_missing:
        raise SystemExit(
            f"{len(missing)} crates are missing (--fetch or --allow-missing?): {missing}"
        )
    counts = {side: sum(len(row["text"].encode()) for row in rows[side]) for side in rows}
    facts = {"bytes": counts, "left_out": left_out, "missing": missing, "crates": crates}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "manifest.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    for side, chosen in rows.items():
        (given.out / f"{side}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    print(
        f"{len(crates)} crates, {len(missing)} missing, bytes {counts}, left out {dict(left_out)}"
    )


def pin(crates: pathlib.Path) -> None:
    """Lock lines for what `choose` would take."""
    for archive in sorted(crates.glob("*.crate")):
        name, version = re.fullmatch(r"(.+?)-(\d+\.\d+\.\d+.*)", archive.stem).groups()
        licence = licence_of(members(archive)["Cargo.toml"])
        if not why_not_crate(name, licence):
            print(name, version, hashlib.sha256(archive.read_bytes()).hexdigest(), licence)


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("crates", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path, nargs="?")
    parser.add_argument("--lock", type=pathlib.Path, default=HERE / "corpus.lock")
    parser.add_argument("--fetch", action="store_true")
    parser.add_argument("--allow-missing", action="store_true")
    parser.add_argument("--held-out-one-in", type=int, default=HELD_OUT_ONE_IN)
    parser.add_argument("--pin", action="store_true")
    given = parser.parse_args(words)
    if not given.pin and not given.out:
        parser.error("where to? (OUT)")
    return given


if __name__ == "__main__":
    given = arguments()
    pin(given.crates) if given.pin else choose(given)
