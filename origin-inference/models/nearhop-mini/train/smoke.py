"""Runs the whole recipe in small, in less than a minute, and fails loudly.

    python smoke.py                     all of it (needs PyTorch)
    python smoke.py --without-torch     random weights instead of trained ones

Corpus: some of this repository's own Rust, packed as a crate.
"""

import argparse
import hashlib
import io
import pathlib
import tarfile
import tempfile
import time

import numpy as np

import corpus
import evaluate
import export
import shape as shapes
import tokenizer
from batches import IGNORED, Batches

SHAPE = "smoke"
STEPS = 20
TEXT = "fn first(&self) -> Option<u64> {\n    self.values.first().copied()\n}\n"


def check(holds: object, what: str) -> None:
    if not holds:
        raise SystemExit(f"smoke: {what}")
    print(f"ok  {what}", flush=True)


def refuses(call, *words: object) -> bool:
    try:
        call(*words)
    except SystemExit:
        return True
    return False


def crate(crates: pathlib.Path, name: str, licence: str, files: dict[str, bytes]) -> str:
    """Packs a crate; its line of the lock."""
    manifest = f'[package]\nname = "{name}"\nversion = "1.0.0"\nlicense = "{licence}"\n'
    path = crates / f"{name}-1.0.0.crate"
    with tarfile.open(path, "w:gz") as tar:
        for inner, content in {"Cargo.toml": manifest.encode(), **files}.items():
            entry = tarfile.TarInfo(f"{name}-1.0.0/{inner}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return f"{name} 1.0.0 {hashlib.sha256(path.read_bytes()).hexdigest()} {licence}\n"


def check_corpus(folder: pathlib.Path) -> list[str]:
    paths = sorted(export.REPOSITORY.glob("*/src/**/*.rs"))[:30]
    own = {str(path.relative_to(export.REPOSITORY)): path.read_bytes() for path in paths}
    line = b"pub const SOME_VALUE: u64 = 1;\n"
    added = {
        "src/generated.rs": b"// @generated\n" + 20 * line,
        "src/again.rs": own[min(own)] + b"\n",
    }
    crates, lock = folder / "crates", folder / "corpus.lock"
    crates.mkdir()
    lines = [
        crate(crates, "own", "MIT", own | added),
        crate(crates, "copyleft", "GPL-3.0-only", {"src/lib.rs": 20 * line}),
        "absent 1.0.0 00 MIT\n",
    ]
    lock.write_text("".join(lines))
    given = corpus.arguments(
        [str(crates), str(folder), "--lock", str(lock), "--held-out-one-in", "9"]
    )
    check(refuses(corpus.choose, given), "corpus: a missing crate is an error")
    given.allow_missing = True
    corpus.choose(given)
    facts = export.facts(folder / "manifest.json")
    check(list(facts["crates"]) == ["own-1.0.0"], "corpus: only the permissive crate")
    left_out = {"generated", "duplicate", "crate's licence"}
    check(left_out <= set(facts["left_out"]), "corpus: neither generated files nor duplicates")
    check(facts["bytes"]["train"] > 100_000, "corpus: enough to train on")
    check(facts["bytes"]["held_out"] > 1_000, "corpus: some is held out")
    lock.write_text(lines[0].replace("own 1.0.0 ", "own 1.0.0 0"))
    check(refuses(corpus.choose, given), "corpus: another archive is an error")
    return tokenizer.texts(folder / "train.jsonl")


def check_tokenizer(documents: list[str], path: pathlib.Path) -> None:
    tokenizer.learn(documents, shapes.SHAPES[SHAPE].vocabulary).save(str(path))
    words = tokenizer.load(path)
    odd = TEXT + "\tGrüße <|endoftext|>\r\n"
    tokens = words.encode(odd).ids
    check(words.decode(tokens) == odd, "tokenizer: text survives")
    check(min(tokens) >= len(tokenizer.SPECIAL), "tokenizer: a special's name is text")


def check_batches(documents: list[str], words: pathlib.Path) -> None:
    made = Batches(documents, tokenizer.load(words), window=128, rows=64, seed=1)
    tokens, follow = made[7]
    check((tokens == made[7][0]).all(), "batches: a step's batch is always the same")
    learnt = follow[:, :-1] != IGNORED
    check((tokens[:, 1:] == follow[:, :-1])[learnt].all(), "batches: what follows is what follows")
    infilling = tokens[tokens[:, 0] == tokenizer.PREFIX]
    suffix_first = (infilling[:, 1] == tokenizer.SUFFIX).mean()
    check(len(infilling) > 30 and 0.25 < suffix_first < 0.75, "batches: infilling, in both orders")


def check_training(folder: pathlib.Path, words: pathlib.Path) -> pathlib.Path:
    import train

    def trained(name: str, *more: str) -> dict[str, np.ndarray]:
        sizes = ["--shape", SHAPE, "--window", "128", "--rows", "4", "--device", "cpu"]
        paths = [str(folder), str(words), str(folder / name)]
        train.train(train.arguments([*paths, *sizes, "--steps", str(STEPS), "--rate", "3", *more]))
        return shapes.load(folder / name / "weights.safetensors")[1]

    whole = trained("whole")
    trained("halves", "--pause-after", str(STEPS // 2))
    halves = trained("halves")
    same = all((whole[name] == halves[name]).all() for name in whole)
    check(same, "training: a run that paused ends with the same weights")
    loss = export.facts(folder / "whole/training.json")["held_out_nats_per_token"]
    check(loss < np.log(shapes.SHAPES[SHAPE].vocabulary) - 0.3, f"training: it learns ({loss})")
    return folder / "whole/weights.safetensors"


def check_same_as_trained(weights: pathlib.Path, decoder: evaluate.Decoder) -> None:
    import torch

    import model

    shape, arrays = shapes.load(weights)
    trained = model.Model(shape)
    trained.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
    tokens = decoder.encode(TEXT)
    with torch.no_grad():
        expected = trained(torch.tensor([tokens]))[0].numpy()
    logits, _ = decoder.step(tokens, decoder.empty(128))
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(logits, axis=1)
    cosine = ((expected * logits).sum(1) / lengths).min()
    check(cosine > 0.995, f"export: the trained network's logits (cosine {cosine:.4f})")


def check_folder(
    folder: pathlib.Path, weights: pathlib.Path, words: pathlib.Path
) -> evaluate.Decoder:
    out = folder / "model"
    given = export.arguments([str(weights), str(words), str(folder), str(out)])
    export.export(given)
    first = (out / "model.onnx").read_bytes()
    export.export(given)
    check(first == (out / "model.onnx").read_bytes(), "export: the same bytes again")
    decoder = evaluate.Decoder(out)
    tokens = decoder.encode(TEXT)
    at_once, _ = decoder.step(tokens, decoder.empty(128))
    check(np.isfinite(at_once).all(), "decode: logits are numbers")
    cache = decoder.empty(128)
    for place, token in enumerate(tokens):
        alone, cache = decoder.step([token], cache, before=place)
        # Products of 8 bits round what goes into them too: a last bit can tip a whole step.
        rounding = 0.05 * np.ptp(at_once[place])
        np.testing.assert_allclose(alone[0], at_once[place], rtol=0, atol=rounding)
    check(True, "decode: token by token is as all at once")
    cost = evaluate.bits_per_byte(decoder, [TEXT])
    check(0 < cost < 9, f"evaluate: {cost:.2f} bits per byte")
    task = {"prompt": "fn one() -> u64 {\n", "suffix": "}\n", "canonical_solution": "    1\n"}
    found = evaluate.exact_lines(decoder, [task])
    check(set(found) == {"suffix_first", "prefix_first"}, "evaluate: infilling in both orders")
    return decoder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--without-torch", action="store_true")
    given = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        words = folder / "tokenizer.json"
        documents = check_corpus(folder)
        check_tokenizer(documents, words)
        check_batches(documents, words)
        if given.without_torch:
            weights = folder / "weights.safetensors"
            shape = shapes.SHAPES[SHAPE]
            shapes.save(weights, shape, shapes.random_weights(shape))
        else:
            weights = check_training(folder, words)
        decoder = check_folder(folder, weights, words)
        if not given.without_torch:
            check_same_as_trained(weights, decoder)
    print(f"smoke: all well after {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
