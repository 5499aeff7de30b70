"""Writes tests/interchange/golden/forced_tokens.npz: what transformers writes where tokens are forced, or suppressed at first.

    python scripts/oracle/forced_tokens.py        # a Python with torch and transformers; jaxllm is not needed

The models are those of families.py and encoder_decoders.py, with seeded weights. A case has its options, as
generation_config.json has them, and the ids of greedy and beam search.
"""
# pyright: reportMissingImports=false

import json
from typing import Any

import encoder_decoders
import families
import numpy as np
import torch
from families import GOLDEN, ROOT, batch, build

NEW_TOKENS = 6
BART, GPT2 = "BartForConditionalGeneration", "GPT2LMHeadModel"


def bart_cases() -> dict[str, Any]:
    """Two texts to read, the first padded on the right, as encoder_decoders.py searches. The second ends early."""
    model: Any = build(BART, encoder_decoders.CASES[BART])[0]
    last_norm = next(name for name in reversed(model.state_dict()) if "decoder" in name and "final_layer_norm.weight" in name)
    model.get_parameter(last_norm).data.neg_()
    tokens, mask = (x[1:] for x in batch(model.config.vocab_size))
    given = {"inputs": tokens, "attention_mask": mask, "pad_token_id": 1}
    free = greedy_ids(model, given, 1)
    first, own_end, second = free[0][0], free[1][2], greedy_ids(model, given, 1, forced_bos_token_id=17)[0][1]
    options = {
        "bart": {"forced_bos_token_id": 0, "forced_eos_token_id": 2, "eos_token_id": 2},
        "bart that ends early": {"forced_bos_token_id": 0, "forced_eos_token_id": own_end, "eos_token_id": own_end},
        "a language first": {"forced_bos_token_id": 17, "eos_token_id": own_end, "begin_suppress_tokens": [second, own_end]},
        "suppressed first": {"begin_suppress_tokens": [first, own_end], "suppress_tokens": [46], "eos_token_id": own_end},
        "one of two ends": {"forced_eos_token_id": [5, 9], "eos_token_id": 9},
    }
    return {name: searched(model, given, 1, BART, more) for name, more in options.items()}


def gpt2_cases() -> dict[str, Any]:
    """Prompts of one token, after which the first is forced, and of several, after which it is not."""
    model: Any = build(GPT2, families.CASES[GPT2])[0]
    tokens = batch(model.config.vocab_size)[0][2:]
    cases = {}
    for name, prompt in (("one token", tokens[:, :1]), ("several tokens", tokens[:, :5])):
        given = {"inputs": prompt, "attention_mask": torch.ones_like(prompt), "pad_token_id": 0}
        forced: dict[str, Any] = {"forced_bos_token_id": 33, "forced_eos_token_id": 7}
        free = greedy_ids(model, given, prompt.shape[1], **forced)[0]
        more = forced | {"begin_suppress_tokens": free[1:2] if name == "one token" else free[:1]}
        found = searched(model, given, prompt.shape[1], GPT2, more)
        cases[f"gpt2, {name}"] = found | {"prompt": prompt.numpy().astype(np.int32)}
    return cases


def greedy_ids(model: Any, given: dict[str, Any], start: int, **options: Any) -> list[list[int]]:
    more = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, **options}
    return model.generate(**given, **more)[:, start:].tolist()


def searched(model: Any, given: dict[str, Any], start: int, architecture: str, options: dict[str, Any]) -> dict[str, Any]:
    more = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "eos_token_id": None, **options}
    with torch.no_grad():
        greedy = model.generate(**given, **more)
        beam = model.generate(**given, **more, num_beams=4, early_stopping=False, length_penalty=1.0)
    ids = {"greedy": greedy[:, start:], "beam": beam[:, start:]}
    described = {"architecture": architecture, "options": options}
    return {name: found.numpy().astype(np.int32) for name, found in ids.items()} | {"case": np.array(json.dumps(described))}


def main() -> None:
    cases = bart_cases() | gpt2_cases()
    arrays: dict[str, Any] = {f"{name}/{key}": value for name, case in cases.items() for key, value in case.items()}
    np.savez_compressed(GOLDEN / "forced_tokens.npz", allow_pickle=False, **arrays)
    print(f"{(GOLDEN / 'forced_tokens.npz').relative_to(ROOT)}: {', '.join(cases)}")
    for name, case in cases.items():
        print(name, case["case"], case["greedy"].tolist(), case["beam"].tolist())


if __name__ == "__main__":
    main()
