"""The tiny models' tokenizer: byte-level BPE, its merges learned from a page of code.

Learned anew at every run, and always the same: the text below is part of the fixture.
"""

import tokenizers

VOCABULARY = 512

SPECIAL = [
    "<|endoftext|>",
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<|reserved|>",
]

# Words, digits one by one, punctuation with its line end, line breaks with their indentation.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

# What the tokenizer's merges are learned from. Changing it changes the fixture.
CORPUS = '''
pub struct Counter { name: String, value: u64, limit: Option<u64> }

impl Counter {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_string(), value: 0, limit: None }
    }

    pub fn with_limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    pub fn increment(&mut self, by: u64) -> Result<u64, Error> {
        let next = self.value.checked_add(by).ok_or(Error::Overflow)?;
        match self.limit {
            Some(limit) if next > limit => Err(Error::Limit { value: next, limit }),
            _ => {
                self.value = next;
                Ok(next)
            }
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = String;

    fn next(&mut self) -> Option<Self::Item> {
        let mut line = String::new();
        while let Some(byte) = self.bytes.next() {
            if byte == b'\\n' {
                return Some(line);
            }
            line.push(char::from(byte));
        }
        if line.is_empty() { None } else { Some(line) }
    }
}

fn main() {
    let mut values = vec![1, 2, 3];
    for value in values.iter_mut() {
        *value += 1;
    }
    let total: u64 = values.iter().map(|value| value * 2).filter(|value| value % 3 == 0).sum();
    println!("total = {total}, first = {:?}", values.first());
}

def read_numbers(path, limit=None):
    """Return the numbers in the file, one on each line, at most `limit` of them."""
    numbers = []
    with open(path) as lines:
        for line in lines:
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            numbers.append(float(line))
            if limit is not None and len(numbers) >= limit:
                break
    return numbers

class Stack:
    def __init__(self, items=None):
        self.items = list(items or [])

    def push(self, item):
        self.items.append(item)
        return self

    def pop(self):
        if not self.items:
            raise IndexError("pop from an empty stack")
        return self.items.pop()

    def __len__(self):
        return len(self.items)

def mean(numbers):
    return sum(numbers) / len(numbers) if numbers else 0.0

def is_prime(number: int) -> bool:
    if number < 2:
        return False
    for divisor in range(2, int(number ** 0.5) + 1):
        if number % divisor == 0:
            return False
    return True

if __name__ == "__main__":
    print([number for number in range(20) if is_prime(number)])
    print(mean(read_numbers("numbers.txt", limit=10)))
'''


def tokenizer() -> tokenizers.Tokenizer:
    """Byte-level BPE: the specials, all 256 bytes, then merges until the vocabulary is full."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated"),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator([CORPUS], trainer)
    size = made.get_vocab_size()
    assert size == VOCABULARY, f"the corpus gives {size} tokens: too short for {VOCABULARY}"
    return made
