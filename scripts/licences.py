"""Are all dependencies' licences among those that deny.toml allows?

    cargo metadata --format-version 1 --locked | python3 scripts/licences.py

The stand-in for `cargo deny check licenses` where cargo-deny is not installed. It believes what
each crate's manifest says and reads no licence texts, it looks at every platform's dependencies,
and it knows of deny.toml only `licenses.allow` and `licenses.exceptions`.
"""

import json
import pathlib
import re
import sys

try:
    import tomllib
except ModuleNotFoundError:
    sys.exit("licences: needs Python 3.11 or newer, whose tomllib reads deny.toml")


def words(expression: str) -> list[str]:
    """SPDX, and the slash that meant OR before crates spoke SPDX."""
    return re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))


def permitted(expression: str, allowed: set[str]) -> bool:
    """Whether `expression` holds when exactly the licences of `allowed` are acceptable.

    AND binds tighter than OR; a licence WITH an exception is one of its own, as in cargo-deny.
    """
    rest = words(expression)

    def one_of() -> bool:
        answer = all_of()
        while rest and rest[0] == "OR":
            rest.pop(0)
            # Read it in any case: `or` would leave the words of an alternative that is not needed.
            answer = all_of() or answer
        return answer

    def all_of() -> bool:
        answer = single()
        while rest and rest[0] == "AND":
            rest.pop(0)
            answer = single() and answer
        return answer

    def single() -> bool:
        if not rest:
            raise ValueError("it ends too early")
        word = rest.pop(0)
        if word == "(":
            answer = one_of()
            if not rest or rest.pop(0) != ")":
                raise ValueError("a parenthesis stays open")
            return answer
        if word in {")", "AND", "OR", "WITH"}:
            raise ValueError(f"{word} where a licence should be")
        if rest[:1] == ["WITH"]:
            word = f"{word} WITH {rest[1] if len(rest) > 1 else ''}"
            del rest[:2]
        return word in allowed

    answer = one_of()
    if rest:
        raise ValueError(f"{rest[0]} is one word too many")
    return answer


def complaint(package: dict, allowed: set[str]) -> str | None:
    expression = package["license"]
    if not expression:
        return f"names no licence (licence file: {package['license_file'] or 'none'})"
    try:
        return None if permitted(expression, allowed) else expression
    except ValueError as why:
        return f"{expression!r} cannot be read: {why}"


def main() -> None:
    deny = pathlib.Path(__file__).resolve().parent.parent / "deny.toml"
    rules = tomllib.loads(deny.read_text())["licenses"]
    exceptions: dict[str, set[str]] = {}
    for entry in rules.get("exceptions", []):
        # cargo-deny calls the key `crate`, and `name` before that.
        exceptions.setdefault(entry.get("crate") or entry["name"], set()).update(entry["allow"])

    packages = json.load(sys.stdin)["packages"]
    refused = 0
    for package in packages:
        why = complaint(package, set(rules["allow"]) | exceptions.get(package["name"], set()))
        if why:
            refused += 1
            print(f"licences: {package['name']} {package['version']}: {why}", file=sys.stderr)
    if refused:
        sys.exit(f"licences: {refused} of {len(packages)} packages are not covered by deny.toml")
    print(f"licences: {len(packages)} packages, all covered by deny.toml")


if __name__ == "__main__":
    main()
