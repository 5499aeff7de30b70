"""Sentence embeddings as transformers makes them: BertModel, the mean over tokens, scaled to length 1.

    python scripts/oracle/sentences.py FOLDER SENTENCES.json OUT.npz        # a Python with torch and transformers

FOLDER is a published model with its tokenizer. Texts are cut at 256 tokens. OUT holds the vectors, one sentence at a time so
that nothing is padded, and the token ids of each.
"""
# pyright: reportMissingImports=false

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertModel

MAX_LEN = 256


def main() -> None:
    folder, sentences, out = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = BertModel.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    vectors, ids = [], []
    for text in json.loads(Path(sentences).read_text("utf-8")):
        tokens = tokenizer(text, return_tensors="pt", truncation=True, max_length=MAX_LEN)
        with torch.no_grad():
            mean = model(**tokens).last_hidden_state[0].mean(0)
        vectors.append(torch.nn.functional.normalize(mean, dim=0).numpy())
        ids.append(tokens["input_ids"][0].tolist())
    np.savez(out, allow_pickle=False, vectors=np.stack(vectors), ids=np.array(json.dumps(ids)))


if __name__ == "__main__":
    main()
