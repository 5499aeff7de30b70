"""jaxllm's side of published_decoder.py: prints one JSON object."""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

STARTED = time.time() - time.process_time()


def main() -> None:
    import jax.numpy as jnp
    import numpy as np

    import jaxllm
    from jaxllm.training.cross_entropy import LossConfig, cross_entropy  # also brings in all that a first call would import

    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("task", type=Path)
    parser.add_argument("out")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    task = json.loads(options.task.read_text("utf-8"))
    started = time.perf_counter()
    m = jaxllm.load(options.folder)
    assert m.tokenizer is not None
    m.generate(task["prompt"], max_tokens=1, temperature=0.0)
    result: dict[str, Any] = {"first_token_seconds": time.perf_counter() - started, "process_seconds": time.time() - STARTED}
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    m.generate(task["prompt"], max_tokens=65, temperature=0.0)  # compiles, or reads the compiled programs
    started = time.perf_counter()
    m.generate(task["prompt"], max_tokens=65, temperature=0.0)
    result["tokens_per_second"] = 64 / (time.perf_counter() - started)
    if options.whole:
        ids = m.tokenizer.encode(task["text"])
        windows = np.asarray(ids[: len(ids) // 512 * 512]).reshape(-1, 512)
        total = weight = 0.0
        for row in windows:
            logits = m(row[None]).logits
            assert logits is not None
            sums = cross_entropy(logits[:, :-1], jnp.asarray(row[None, 1:]), jnp.ones((1, 511)), LossConfig())
            total, weight = total + float(sums.cross_entropy), weight + float(sums.weight)
        result["perplexity"] = float(np.exp(total / weight))
        np.save(f"{options.out}.npy", np.asarray(m(windows[:1]).logits))
        question = [{"role": "user", "content": task["question"]}]
        result["reply"] = m.generate(question, max_tokens=80, temperature=0.0)[0]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
