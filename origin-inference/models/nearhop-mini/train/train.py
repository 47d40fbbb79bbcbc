"""Trains a model on a corpus. Started again with the same OUT, it goes on where it was.

    python train.py CORPUS TOKENIZER OUT --shape mini --steps 8720

CORPUS is corpus.py's folder. OUT gets checkpoint.pt (to go on), weights.safetensors (for export.py)
and training.json (what was done). The same arguments give the same batches; the same weights too on
the same kind of CPU with as many threads. The only file that needs PyTorch, besides model.py.
"""

import argparse
import json
import math
import os
import pathlib
import time
from collections.abc import Callable

import torch
from torch.nn import functional

import shape as shapes
import tokenizer
from batches import IGNORED, Batches
from model import Model

WARM_UP_STEPS = 50
LAST_RATE = 0.02  # of the first
MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
OF_A_RUN = ("shape", "steps", "window", "rows", "rate", "seed")  # a run that goes on agrees on them


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for folder in ("corpus", "tokenizer", "out"):
        parser.add_argument(folder, type=pathlib.Path)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="mini")
    parser.add_argument("--steps", type=int, required=True, help="of the whole schedule")
    parser.add_argument("--window", type=int, default=512, help="tokens of a row")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--rate", type=float, default=1.0, help="times the usual learning rates")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--start-from", type=pathlib.Path, help="weights.safetensors of another run"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto")
    parser.add_argument("--compile", action="store_true", help="worth it on a GPU")
    parser.add_argument("--processes", type=int, default=0, help="that prepare batches")
    parser.add_argument("--save-every", type=int, default=500, help="steps")
    parser.add_argument("--pause-after", type=int, help="stop at this step, to go on another time")
    return parser.parse_args(words)


def is_bf16(given: argparse.Namespace) -> bool:
    if given.precision != "auto":
        return given.precision == "bf16"
    if given.device.startswith("cuda"):
        return torch.cuda.is_bf16_supported()
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()  # on others it is emulated, slowly


def rate(step: int, steps: int) -> float:
    """Up in a line, down along a cosine."""
    cosine = (1 + math.cos(math.pi * step / steps)) / 2
    return min(1.0, (step + 1) / WARM_UP_STEPS) * (LAST_RATE + (1 - LAST_RATE) * cosine)


def optimizers(model: Model) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW for the embedding and the norms."""
    named = dict(model.named_parameters())
    matrices = [p for name, p in named.items() if name.startswith("layers.") and p.ndim == 2]
    others = [p for name, p in named.items() if not (name.startswith("layers.") and p.ndim == 2)]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.05),
        torch.optim.AdamW(others, lr=OTHER_RATE, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def loss_of(model: torch.nn.Module, batch: tuple, device: str, bf16: bool) -> torch.Tensor:
    tokens, follow = (torch.as_tensor(part, device=device) for part in batch)
    with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=bf16):
        logits = model(tokens)
    return functional.cross_entropy(
        logits.flatten(0, 1).float(), follow.flatten(), ignore_index=IGNORED
    )


def batches(given: argparse.Namespace, file: str) -> Batches:
    texts = tokenizer.texts(given.corpus / file)
    words = tokenizer.load(given.tokenizer)
    return Batches(texts, words, given.window, given.rows, given.seed)


def set_rates(tuned: list[torch.optim.Optimizer], factor: float) -> None:
    for optimizer, usual in zip(tuned, (MATRIX_RATE, OTHER_RATE), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = usual * factor


@torch.no_grad()
def held_out_loss(model: Model, given: argparse.Namespace, bf16: bool) -> float:
    held_out = batches(given, "held_out.jsonl")
    losses = [loss_of(model, held_out[step], given.device, bf16).item() for step in range(16)]
    return sum(losses) / len(losses)


def replace(path: pathlib.Path, write: Callable[[pathlib.Path], object]) -> None:
    """Writes beside the file, then moves: what is interrupted leaves the old one."""
    part = path.with_suffix(".part")
    write(part)
    part.replace(path)


def train(given: argparse.Namespace) -> None:
    """Trains to the end of the schedule, or to the pause."""
    given.out.mkdir(parents=True, exist_ok=True)
    shape, bf16 = shapes.SHAPES[given.shape], is_bf16(given)
    run = {name: getattr(given, name) for name in OF_A_RUN}
    torch.manual_seed(given.seed)
    model = Model(shape).to(given.device)
    if given.start_from:
        _, weights = shapes.load(given.start_from)
        model.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    tuned = optimizers(model)
    first, seconds = 0, 0.0
    if (given.out / "checkpoint.pt").exists():
        saved = torch.load(given.out / "checkpoint.pt", map_location=given.device)
        if saved["run"] != run:
            raise SystemExit(f"{given.out} holds another run: {saved['run']}, this one is {run}")
        first, seconds = saved["step"], saved["seconds"]
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(tuned, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)

    def save(step: int) -> None:
        state = {
            "run": run,
            "step": step,
            "seconds": seconds + time.monotonic() - started,
            "model": model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in tuned],
        }
        replace(given.out / "checkpoint.pt", lambda path: torch.save(state, path))
        arrays = {name: p.detach().float().cpu().numpy() for name, p in model.named_parameters()}
        replace(given.out / "weights.safetensors", lambda path: shapes.save(path, shape, arrays))
        print(f"step {step}: loss {loss.item():.3f}, {state['seconds']:.0f} s", flush=True)

    last = min(given.steps, given.pause_after or given.steps)
    source = torch.utils.data.DataLoader(
        batches(given, "train.jsonl"),
        batch_size=None,
        sampler=range(first, last),
        num_workers=given.processes,
    )
    stepped = torch.compile(model) if given.compile else model
    started = time.monotonic()
    for step, batch in enumerate(source, first):
        set_rates(tuned, given.rate * rate(step, given.steps))
        loss = loss_of(stepped, batch, given.device, bf16)
        loss.backward()
        for optimizer in tuned:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % given.save_every == 0 or step + 1 == last:
            save(step + 1)

    facts = {
        **run,
        "start_from": given.start_from and given.start_from.parent.name,
        "steps_done": last,
        "parameters": shape.parameters(),
        "tokens": last * given.rows * given.window,
        "seconds": round(seconds + time.monotonic() - started),
        "held_out_nats_per_token": round(held_out_loss(model, given, bf16), 3),
        "device": given.device.partition(":")[0],
        "precision": "bf16" if bf16 else "fp32",
        "torch": torch.__version__,
    }
    (given.out / "training.json").write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # processes, not threads
    train(arguments())
