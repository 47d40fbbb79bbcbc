"""GPTCache on a stream of questions, for the suite `semantic`; run by .peers/gptcache, which has it.

A command a line, an answer a line:

    replay DRAWS THRESHOLD FOLDER      a JSON list of [question, answer]; its databases are made in FOLDER

As its users drive it: `get`, and where that has nothing, `put`. Its rules are its own: the nearest of a
flat index, by distance, over a threshold. Only its embedding is ours, so that the rules alone differ.
"""

import json
import os
import pathlib
import sys
import time

# Before anything loads a library that starts threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from gptcache import Cache, Config  # noqa: E402
from gptcache.adapter.api import get, put  # noqa: E402
from gptcache.manager import CacheBase, VectorBase, get_data_manager  # noqa: E402
from gptcache.processor.pre import get_prompt  # noqa: E402
from gptcache.similarity_evaluation.distance import SearchDistanceEvaluation  # noqa: E402

from minilm import DIMENSIONS, Embedder  # noqa: E402

# It forgets after a thousand where it is not told otherwise; ours does not, of so few.
MAX_ENTRIES = 1_000_000


def cache(embedder, threshold, folder):
    made = Cache()
    manager = get_data_manager(CacheBase("sqlite", sql_url=f"sqlite:///{folder}/cache.db"),
                               VectorBase("faiss", dimension=DIMENSIONS, index_path=f"{folder}/faiss.index"), max_size=MAX_ENTRIES)
    made.init(pre_embedding_func=get_prompt, embedding_func=lambda text, **_: embedder.embed(text)[0], data_manager=manager,
              similarity_evaluation=SearchDistanceEvaluation(), config=Config(similarity_threshold=threshold))
    return made


def replay(embedder, file, threshold, folder):
    draws = json.loads(pathlib.Path(file).read_text())
    # Embedding is counted apart: the same text need not be computed for every threshold.
    embedding_us = [embedder.embed(text)[1] for text, _ in draws]
    made = cache(embedder, float(threshold), folder)
    served = wrong = 0
    took_us = []
    for text, answer in draws:
        before = time.process_time_ns()
        earlier = get(text, cache_obj=made)
        took_us.append((time.process_time_ns() - before) / 1e3)
        if earlier is None:
            put(text, answer, cache_obj=made)
        else:
            served += 1
            wrong += earlier != answer
    together_us = [look_us + embed_us for look_us, embed_us in zip(took_us, embedding_us)]
    return {"served": served, "wrong": wrong, **quantiles("cpu_us", took_us), **quantiles("with_embedding_us", together_us)}


def quantiles(name, values):
    values = sorted(values)
    return {f"{name}_p{percent}": values[(len(values) - 1) * percent // 100] for percent in (50, 99)}


def main():
    embedder = Embedder()
    for line in sys.stdin:
        command, *words = line.split()
        try:
            answer = replay(embedder, *words) if command == "replay" else {"error": f"no command {command}"}
        except Exception as error:  # noqa: BLE001: said to who asked, who ends the run
            answer = {"error": repr(error)}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
