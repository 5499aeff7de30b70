"""Writes tests/interchange/golden/generation_settings.json: how transformers generates from folders that say little of it.

    python scripts/oracle/generation_settings.py        # a Python with torch and transformers; jaxllm is not needed

A case is a folder as encoder_decoders.py makes it for its searches, with other tokens in config.json and, mostly, without
generation_config.json: what `from_pretrained` has as its settings, and greedy ids where it finds a token to begin with.
"""
# pyright: reportMissingImports=false

import json
import tempfile
from pathlib import Path
from typing import Any

import encoder_decoders
import torch
import transformers
from families import GOLDEN, ROOT, batch, build

NEW_TOKENS = 6
BART, MARIAN, T5 = "BartForConditionalGeneration", "MarianMTModel", "T5ForConditionalGeneration"
SETTINGS = (
    *("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
    *("suppress_tokens", "begin_suppress_tokens", "bad_words_ids"),
)
WHOLE = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 1, "decoder_start_token_id": 2, "forced_eos_token_id": 2}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "bart, all said": (BART, WHOLE, None),
    "bart, nothing said": (BART, {}, None),
    "bart, all null": (BART, dict.fromkeys(WHOLE), None),
    "bart, a beginning only": (BART, {"bos_token_id": 0}, None),
    "bart, no forced end": (BART, {key: WHOLE[key] for key in WHOLE if not key.startswith("forced")}, None),
    "bart, its first files": (BART, WHOLE | {"force_bos_token_to_be_generated": True, "forced_bos_token_id": 7}, None),
    "bart, a file that counts for more": (BART, WHOLE, {"bos_token_id": 5, "eos_token_id": 2}),
    "bart, an end that is suppressed": (
        *(BART, WHOLE),
        {"decoder_start_token_id": 2, "eos_token_id": 38, "suppress_tokens": [46, 38], "forced_eos_token_id": 9},
    ),
    "marian, padding and start only": (MARIAN, {"pad_token_id": 60, "decoder_start_token_id": 60}, None),
    "marian, all said": (
        *(MARIAN, {"pad_token_id": 60, "decoder_start_token_id": 60, "eos_token_id": 0, "forced_eos_token_id": 0}),
        None,
    ),
    "t5, nothing said": (T5, {}, None),
    "t5, start only": (T5, {"decoder_start_token_id": 0}, None),
}
"""Class; the tokens in config.json, where all others are taken out; generation_config.json."""


def answer(name: str, said: dict[str, Any], generation: dict[str, Any] | None) -> dict[str, Any]:
    model: Any
    model, config, _ = build(name, encoder_decoders.CASES[name])
    norm = next(key for key in reversed(model.state_dict()) if "decoder" in key and "final_layer_norm.weight" in key)
    model.get_parameter(norm).data.neg_()  # as for the searches of encoder_decoders.py
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        fields = {key: value for key, value in config.items() if key not in SETTINGS} | said
        Path(folder, "config.json").write_text(json.dumps(fields))
        Path(folder, "generation_config.json").unlink()
        if generation is not None:
            Path(folder, "generation_config.json").write_text(json.dumps(generation))
        model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32).eval()
    found = {key: getattr(model.generation_config, key, None) for key in SETTINGS}
    settings = {key: value for key, value in found.items() if value is not None}
    tokens, mask = (x[1:] for x in batch(model.config.vocab_size))
    try:
        ids = model.generate(tokens, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=False).tolist()
    except ValueError:  # no token to begin with
        ids = None
    return {"architecture": name, "said": said, "generation": generation, "settings": settings, "ids": ids}


def main() -> None:
    found = {case: answer(*what) for case, what in CASES.items()}
    path = GOLDEN / "generation_settings.json"
    path.write_text(json.dumps({"transformers": transformers.__version__, "cases": found}, indent=1) + "\n", "utf-8")
    print(path.relative_to(ROOT))
    for case, answered in found.items():
        print(case, answered["settings"], answered["ids"])


if __name__ == "__main__":
    main()
