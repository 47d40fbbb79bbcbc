"""Learns the tokenizer: byte-level BPE over the corpus.

python tokenizer.py CORPUS/train.jsonl OUT/tokenizer.json
"""

import argparse
import json
import pathlib

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

SPECIAL = [
    *("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|reserved|>"),
]
END, PREFIX, SUFFIX, MIDDLE, PAD = range(5)

# Words, digits one by one, punctuation with its line end, line breaks with their indentation.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

SAMPLE_BYTES = 9_000_000  # more changes few merges


def texts(path: pathlib.Path) -> list[str]:
    with path.open() as lines:
        return [json.loads(line)["text"] for line in lines]


def learn(documents: list[str], vocabulary: int) -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Every n-th file: the corpus is in the order of crates' names.
    share = max(1, sum(map(len, documents)) // SAMPLE_BYTES)
    made.train_from_iterator(documents[::share], trainer)
    if made.get_vocab_size() != vocabulary:
        raise SystemExit(f"{made.get_vocab_size()} tokens: the corpus is too small")
    return made


def load(path: pathlib.Path) -> tokenizers.Tokenizer:
    """With the special tokens' names in a text read as text, as a pod reads them."""
    loaded = tokenizers.Tokenizer.from_file(str(path))
    loaded.encode_special_tokens = True
    return loaded


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("corpus", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--vocabulary", type=int, default=4096)
    given = parser.parse_args()
    learn(texts(given.corpus), given.vocabulary).save(str(given.out))
