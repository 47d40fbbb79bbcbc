"""The windows of tokens that a step learns from: a function of the seed and the step's number.

So a run that was interrupted goes on with what it would have seen, and any number of processes may
prepare batches.
"""

import numpy as np
import tokenizers

from tokenizer import END, MIDDLE, PAD, PREFIX, SUFFIX

IGNORED = -100  # what PyTorch's cross entropy leaves out
BYTES_PER_TOKEN = 3  # of text to take for a window; a little less than there are
MIDDLE_TOKENS_MAX = 96


class Batches:
    def __init__(
        self,
        documents: list[str],
        tokenizer: tokenizers.Tokenizer,
        window: int,
        rows: int,
        seed: int,
        fim_share: float = 0.7,
    ) -> None:
        self.documents = documents
        self.tokenizer = tokenizer
        self.window, self.rows, self.seed, self.fim_share = window, rows, seed, fim_share
        # A long file is drawn more often, but it is not the corpus.
        self.ends = np.cumsum([min(len(text), 20_000) for text in documents])

    def __getitem__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and what follows each, both [rows, window]."""
        random = np.random.default_rng([self.seed, step])
        tokens = np.full((self.rows, self.window + 1), PAD)
        follow = np.full((self.rows, self.window + 1), IGNORED)
        for row in range(self.rows):
            infilling = random.random() < self.fim_share
            drawn = self.infilling(random) if infilling else self.plain(random)
            tokens[row, : len(drawn)] = follow[row, : len(drawn)] = drawn
        return tokens[:, :-1], follow[:, 1:]

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def text(self, random: np.random.Generator) -> str:
        """A window's worth of some file, from the start of a line."""
        text = self.documents[np.searchsorted(self.ends, random.integers(self.ends[-1]), "right")]
        size = BYTES_PER_TOKEN * self.window
        start = text.rfind("\n", 0, random.integers(max(1, len(text) - size))) + 1
        return text[start : start + size]

    def plain(self, random: np.random.Generator) -> list[int]:
        tokens: list[int] = []
        while len(tokens) <= self.window:
            tokens += [*self.encode(self.text(random)), END]
        return tokens[: self.window + 1]

    def infilling(self, random: np.random.Generator) -> list[int]:
        """Cut at characters, not at tokens, because a cursor stands anywhere in a word."""
        text = self.text(random)
        start, end = cut(text, random)
        prefix, suffix = self.encode(text[:start]), self.encode(text[end:])
        middle = [*self.encode(text[start:end])[:MIDDLE_TOKENS_MAX], END]
        room = self.window + 1 - 3 - len(middle)
        suffix = suffix[: int(room * random.uniform(0.05, 0.4))]
        prefix = prefix[max(0, len(prefix) - (room - len(suffix))) :]
        if random.random() < 0.5:
            return [PREFIX, *prefix, SUFFIX, *suffix, MIDDLE, *middle]
        return [PREFIX, SUFFIX, *suffix, MIDDLE, *prefix, *middle]


def cut(text: str, random: np.random.Generator) -> tuple[int, int]:
    """The middle to fill in: mostly the rest of a line, at times some lines, or any span."""
    cursor = int(random.integers(len(text)))
    kind = random.random()
    if kind > 0.8:
        return cursor, min(len(text), cursor + int(random.integers(1, 150)))
    start = text.rfind("\n", 0, cursor) + 1 if random.random() < 0.5 else cursor
    end = line_end(text, cursor)
    if kind > 0.55:
        for _ in range(int(random.integers(1, 5))):
            end = line_end(text, end + 1)
    if random.random() < 0.35:
        end = min(len(text), end + 1)  # with the line break
    return start, end


def line_end(text: str, start: int) -> int:
    found = text.find("\n", start)
    return len(text) if found < 0 else found
