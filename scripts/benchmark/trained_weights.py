"""Do small trained models in odd layouts give what is published of them, and what transformers gives? Writes a record each.

python scripts/benchmark/trained_weights.py DATA --oracle PYTHON  # one with torch and transformers

DATA holds pretrained/ and tinystories_sample/: stories260K (karpathy's llama2.c), gpt-nano-sort (bbycroft/llm-viz) and the
transliteration model of CTranslate2's tests, all three under the MIT licence.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from record import write_named_record

from jaxllm.hardware import set_up
from jaxllm.interchange import find_family, write_folder

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.interchange.trained_facts import (  # noqa: E402
    WORDS,
    largest_difference,
    sorter_facts,
    story_batch,
    story_facts,
    transliterator_facts,
)
from tests.interchange.trained_weights import (  # noqa: E402
    Trained,
    read_json_arrays,
    read_sorter,
    read_stories,
    read_transliterator,
)

TOPIC = "trained_weights"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="the folder with the models and the stories")
    parser.add_argument("--oracle", required=True, help="a Python with torch and transformers")
    options = parser.parse_args()
    set_up()
    folder = options.data / "pretrained"

    stories, tokenizer = read_stories(folder / "stories260K")
    tokens = np.asarray(story_batch(options.data, tokenizer))
    facts = story_facts(options.data) | as_exported(options.oracle, "LlamaForCausalLM", stories, tokens)
    write("stories260K", stories, facts, "Float32. The published loss, 1.32, is of the first 8 stories cut to 256 tokens.")

    sorter = read_sorter(folder / "gpt_nano_sort")
    _, partials = read_json_arrays(folder / "gpt_nano_sort" / "gpt-nano-sort-t0-partials.json")
    tokens = partials["idx"].astype(np.int32)
    facts = sorter_facts(options.data) | as_exported(options.oracle, "GPT2LMHeadModel", sorter, tokens)
    write(
        "gpt_nano_sort", sorter, facts, "Float32, against published tensors of 3 sequences; 500 random sequences of 6 digits."
    )

    transliterator = read_transliterator(folder / "ct2_aren_transliteration").trained
    published = {word: {"text": text, "log_probability": score} for word, (text, score) in WORDS.items()}
    facts = {"greedy": transliterator_facts(options.data), "published": published}
    write(
        "ct2_aren_transliteration", transliterator, facts, "Float32, greedy; the published scores are of CTranslate2's tests."
    )


def as_exported(python: str, architecture: str, trained: Trained, tokens: np.ndarray) -> dict[str, Any]:
    """How far the logits of transformers are, which reads the same model as a published folder."""
    forward = jax.jit(lambda params, tokens: trained.model.apply({"params": params}, tokens).logits)
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_folder(Path(temporary, "exported"), find_family(architecture), trained.model.config, trained.params)
        np.savez(folder / "inputs.npz", input_ids=tokens.astype(np.int64))
        script = ROOT / "scripts" / "oracle" / "answer.py"
        answer = subprocess.run([python, str(script)], input=f"{folder}\n", capture_output=True, text=True, check=True)
        if problem := json.loads(answer.stdout):
            raise SystemExit(problem)
        with np.load(folder / "outputs.npz") as file:
            return {"largest_difference_to_transformers": largest_difference(forward(trained.params, tokens), file["logits"])}


def write(name: str, trained: Trained, results: dict[str, Any], notes: str) -> None:
    print(json.dumps(results, indent=1, ensure_ascii=False))
    print(write_named_record(TOPIC, name, dataclasses.asdict(trained.model.config), results, notes))


if __name__ == "__main__":
    main()
