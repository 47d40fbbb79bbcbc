"""The other side of the suite `inference`: the commands of origin-inference's bench `decoder`, answered
by onnxruntime-genai. Runs under the Python that has it: `python genai.py FOLDER TOKENIZER`.
"""

import json
import sys
import time

import numpy as np
import onnxruntime_genai as og
import tokenizers


def main():
    model, tokenizer = og.Model(sys.argv[1]), tokenizers.Tokenizer.from_file(sys.argv[2])

    def generator(batch, length):
        parameters = og.GeneratorParams(model)
        parameters.set_search_options(max_length=length, batch_size=batch, do_sample=False)
        return og.Generator(model, parameters)

    def prompt(slot, length):
        return [(at * 31 + slot) % 4000 + 16 for at in range(length)]

    def timed(work):
        cpu, wall = time.process_time(), time.perf_counter()
        work()
        return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}

    for line in sys.stdin:
        command, _, rest = line.strip().partition(" ")
        if command == "encode":
            print(json.dumps({"ids": tokenizer.encode(json.loads(rest)).ids}), flush=True)
            continue
        numbers = [int(word) for word in rest.split()]
        if command == "prefill":
            (tokens,) = numbers
            made = generator(1, 1024)
            answer = timed(lambda: made.append_tokens(np.array(prompt(0, tokens), np.int32)))
        elif command == "decode":
            batch, context, steps = numbers
            made = generator(batch, 1024)
            rows = [prompt(slot, context) for slot in range(batch)]
            made.append_tokens(np.array(rows if batch > 1 else rows[0], np.int32))

            def decode():
                for _ in range(steps):
                    made.generate_next_token()

            answer = timed(decode)
        else:
            steps, *ids = numbers
            made = generator(1, 1024)
            made.append_tokens(np.array(ids, np.int32))
            # It stops at its own end token; ours is asked for as many steps.
            for _ in range(steps):
                if made.is_done():
                    break
                made.generate_next_token()
            answer = {"tokens": [int(token) for token in made.get_sequence(0)[len(ids):]]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
