"""Embeddings of texts by the tests' MiniLM, one text at a time on one thread, as the edge's embedder computes them.

    minilm.py TEXTS VECTORS      a JSON list; rows of f32, in its order

Run by a Python that has onnxruntime and tokenizers: .models/venv, or that of GPTCache.
"""

import json
import pathlib
import sys
import time

MODEL = pathlib.Path(__file__).resolve().parents[1] / ".models/all-minilm-l6-v2"
DIMENSIONS = 384


class Embedder:
    def __init__(self):
        # The suites know where the model is without them.
        import numpy
        import onnxruntime
        import tokenizers

        self.numpy = numpy
        self.tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(MODEL / "model.onnx", options, ["CPUExecutionProvider"])
        # By text: the vector, and the microseconds of CPU that it took.
        self.known = {}

    def embed(self, text):
        if text not in self.known:
            before = time.process_time_ns()
            ids = self.numpy.array([self.tokenizer.encode(text).ids])
            [[vector]] = self.session.run(None, {"input_ids": ids, "attention_mask": self.numpy.ones_like(ids)})
            self.known[text] = (vector, (time.process_time_ns() - before) / 1e3)
        return self.known[text]


def main():
    texts, embedder = json.loads(pathlib.Path(sys.argv[1]).read_text()), Embedder()
    rows = [embedder.embed(text)[0].astype("<f4").tobytes() for text in texts]
    pathlib.Path(sys.argv[2]).write_bytes(b"".join(rows))
    took = sorted(took for _, took in embedder.known.values())
    print(json.dumps({"cpu_us_p50": took[len(took) // 2], "cpu_us_p99": took[len(took) * 99 // 100]}))


if __name__ == "__main__":
    main()
