"""transformers' side of scripts/benchmark/published_decoder.py: prints one JSON object. Needs torch and transformers."""

import argparse
import json
import resource
import time
from pathlib import Path

STARTED = time.time() - time.process_time()

import numpy as np  # noqa: E402
import torch  # noqa: E402  # pyright: ignore[reportMissingImports]
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("task", type=Path)
    parser.add_argument("out")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    task = json.loads(options.task.read_text("utf-8"))
    torch.set_num_threads(2)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(options.folder)
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
    prompt = tokenizer(task["prompt"], return_tensors="pt")
    model.generate(**prompt, max_new_tokens=1, do_sample=False)
    result = {"first_token_seconds": time.perf_counter() - started, "process_seconds": time.time() - STARTED}
    result["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    started = time.perf_counter()
    model.generate(**prompt, max_new_tokens=65, min_new_tokens=65, do_sample=False)
    result["tokens_per_second"] = 64 / (time.perf_counter() - started)
    if options.whole:
        ids = tokenizer(task["text"], add_special_tokens=False)["input_ids"]
        windows = torch.tensor(ids[: len(ids) // 512 * 512]).reshape(-1, 512)
        with torch.no_grad():
            losses = [model(row[None], labels=row[None]).loss.item() for row in windows]
            np.save(f"{options.out}.npy", model(windows[:1]).logits.numpy())
        result["perplexity"] = float(np.exp(np.mean(losses)))
        question = [{"role": "user", "content": task["question"]}]
        chat = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        written = model.generate(**chat, max_new_tokens=80, do_sample=False)[0, chat["input_ids"].shape[1] :]
        result["reply"] = tokenizer.decode(written, skip_special_tokens=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
