"""What transformers computes, asked folder by folder: one process answers many questions.

    python scripts/oracle/answer.py        # a Python with torch and transformers

Reads names of folders from its input, one a line. A folder is a published one with inputs.npz beside config.json: the
keywords to call the model with. Writes outputs.npz there, with `logits` (of an answer's start and end: both, along the last
axis), or `hidden` of a model without a head, in float32; then prints one line, a JSON string: empty, or what went wrong.
Missing and unexpected weights are wrong.
"""
# pyright: reportMissingImports=false

import json
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
import transformers

UNUSED = {"cls.predictions.bias", "lm_head.bias"}
"""What a head that is not tied has and never uses: it may be missing."""


def answer(folder: Path) -> None:
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model, report = getattr(transformers, architecture).from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",  # others want widths that are multiples of four
        output_loading_info=True,
    )
    wrong = {name: sorted(map(str, found)) for name, found in report.items() if set(found) - UNUSED}
    assert not wrong, wrong
    with np.load(folder / "inputs.npz") as file:
        inputs = {name: torch.from_numpy(file[name]) for name in file}
    with torch.no_grad():
        out = model.eval()(**inputs)
    if "start_logits" in out:
        found = {"logits": torch.stack([out.start_logits, out.end_logits], dim=-1)}
    else:
        found = {"logits": out.logits} if "logits" in out else {"hidden": out.last_hidden_state}
    np.savez(folder / "outputs.npz", **{name: value.numpy() for name, value in found.items()})


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        problem = ""
        try:
            answer(Path(line.rstrip("\n")))
        except Exception:
            problem = traceback.format_exc()
        print(json.dumps(problem), flush=True)


if __name__ == "__main__":
    main()
