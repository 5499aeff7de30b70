"""Writes golden files as families.py does, for models with encoder and decoder.

    python scripts/oracle/encoder_decoders.py [NAME ...]        # a Python with torch and transformers; jaxllm is not needed

The batch is what the encoder reads; `labels` are what the decoder writes, -100 where a text has come to its end. Beside
what families.py writes, a file holds hidden states and attention maps of both stacks.

For the searches the scale of the decoder's last norm, `turned`, has the other sign: else a tied output matrix makes each
token follow itself. Their end token, `eos`, is one that greedy search writes, so that texts end early.
"""
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
from families import batch, build, gradients, main, save

T5 = {
    "vocab_size": 61,
    "d_model": 32,
    "d_kv": 16,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 10,
    "decoder_start_token_id": 0,
}
BART = {
    "vocab_size": 61,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 24,
    "decoder_start_token_id": 2,
    "forced_eos_token_id": None,
}
UNEQUAL = {"encoder_layers": 3, "decoder_attention_heads": 2, "decoder_ffn_dim": 40}
CASES: dict[str, dict] = {
    "T5ForConditionalGeneration": T5,
    "T5ForConditionalGeneration.v1_1": {
        **T5,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
    },
    "BartForConditionalGeneration": {**BART, **UNEQUAL, "scale_embedding": True},
    "MarianMTModel": {**BART, "scale_embedding": True, "activation_function": "swish"},
    "MarianMTModel.separate": {
        **BART,
        **UNEQUAL,
        "share_encoder_decoder_embeddings": False,
        "decoder_vocab_size": 53,
        "activation_function": "relu",
    },
}
"""Fields of each class's config; those left out have the class's defaults."""
MORE = {"T5ForConditionalGeneration.v1_1": {"lm_head.weight": (61, 32)}}
NEW_TOKENS = 8
LABELS = (9, 6, 8)
"""Tokens that the decoder writes in each row."""


def labels_of(vocab_size: int) -> torch.Tensor:
    labels = np.random.default_rng(1).integers(1, vocab_size, (len(LABELS), max(LABELS)))
    for row, length in enumerate(LABELS):
        labels[row, length:] = -100
    return torch.from_numpy(labels)


def forward(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Everything one pass gives; the model is of no use afterwards."""
    config: Any = model.config
    tokens, mask = batch(config.vocab_size)
    labels = labels_of(getattr(config, "decoder_vocab_size", config.vocab_size))
    out = model(
        input_ids=tokens, attention_mask=mask, labels=labels, output_hidden_states=True, output_attentions=True, use_cache=False
    )
    out.loss.backward()
    stacked = {
        "hidden": out.encoder_hidden_states,
        "attention": out.encoder_attentions,
        "decoder_hidden": out.decoder_hidden_states,
        "decoder_attention": out.decoder_attentions,
        "cross_attention": out.cross_attentions,
    }
    return {
        "tokens": tokens.numpy().astype(np.int32),
        "mask": mask.numpy().astype(np.int32),
        "labels": labels.numpy().astype(np.int32),
        "logits": out.logits.detach().numpy(),
        **{name: torch.stack(parts).detach().numpy() for name, parts in stacked.items()},
        "loss": out.loss.detach().numpy(),
        **{name: value for name, value in gradients(model).items() if not name.endswith("final_logits_bias")},
    }


def search(model: Any) -> dict[str, np.ndarray]:
    """Ids that greedy and beam search write for two texts, the first padded on the right."""
    tokens, mask = (x[1:] for x in batch(model.config.vocab_size))
    more = {"attention_mask": mask, "max_new_tokens": NEW_TOKENS, "do_sample": False, "pad_token_id": 0}
    last_norm = next(name for name in reversed(model.state_dict()) if "decoder" in name and "final_layer_norm.weight" in name)
    with torch.no_grad():
        model.get_parameter(last_norm).neg_()
        eos = int(model.generate(tokens, **more)[1, 2])
        greedy = model.generate(tokens, eos_token_id=eos, **more)
        beam = model.generate(tokens, num_beams=4, early_stopping=False, length_penalty=1.0, eos_token_id=eos, **more)
        model.get_parameter(last_norm).neg_()
    found = {"source": tokens, "source_mask": mask, "greedy": greedy[:, 1:], "beam": beam[:, 1:]}
    ids = {name: ids.numpy().astype(np.int32) for name, ids in found.items()}
    return ids | {"eos": np.int32(eos), "turned": np.array(last_norm)}


def write(name: str) -> None:
    model, config, shapes = build(name, CASES[name], MORE.get(name))
    save(name, config, shapes, search(model) | forward(model))


if __name__ == "__main__":
    main("models with encoder and decoder", CASES, write)
