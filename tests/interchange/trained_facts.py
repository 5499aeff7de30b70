"""What the small trained models must show: each function measures one of them and compares it with what is published of it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxllm.inference import SamplingConfig, encode_sources, stream_tokens
from jaxllm.models import Model, init_cache
from tests.interchange.trained_weights import (
    EOS,
    read_json_arrays,
    read_sorter,
    read_stories,
    read_transliterator,
)

STORIES = 8
STORY_LEN = 256
SEQUENCES = 500
WORDS = {"آتزمون": ("atzmon", -1.06), "آتشيسون": ("achison", -1.11)}
"""Arabic, the published transliteration, and its log-probability."""


def story_facts(data: Path) -> dict[str, Any]:
    """A Llama of 260,032 parameters: greedy text, and the loss on the first stories of the sample."""
    folder = data / "pretrained" / "stories260K"
    (model, params), tokenizer = read_stories(folder)
    published, written = (folder / "expected_greedy_200.txt").read_text(), greedy(model, params, [[1]], 200)[0]
    stories = story_batch(data, tokenizer)
    logits = jax.jit(lambda params, tokens: model.apply({"params": params}, tokens).logits)(params, stories)
    scores = jax.nn.log_softmax(logits[:, :-1])
    losses = -jnp.take_along_axis(scores, stories[:, 1:, None], axis=-1)
    return {
        "greedy_text_is_the_published_one": tokenizer.decode(written) == published,
        "loss_nats_a_token": float(jnp.mean(losses)),
        "tokens": losses.size,
    }


def story_batch(data: Path, tokenizer: Any) -> jax.Array:
    """The beginnings of the first stories, all longer than that. A story ends with one line end, its paragraphs with two;
    white space is one space here.
    """
    text = (data / "tinystories_sample" / "tiny_stories.txt").read_text("utf-8")
    stories = re.split(r"(?<!\n)\n(?!\n)", text)[:STORIES]
    return jnp.asarray([[1, *tokenizer.encode(" ".join(story.split())).ids][:STORY_LEN] for story in stories])


def sorter_facts(data: Path) -> dict[str, Any]:
    """A GPT-2 of 85,296 parameters: its inner tensors, and sequences that it sorts."""
    folder = data / "pretrained" / "gpt_nano_sort"
    model, params = read_sorter(folder)
    _, want = read_json_arrays(folder / "gpt-nano-sort-t0-partials.json")
    tokens = jnp.asarray(want["idx"].astype(np.int32))
    cache = init_cache(model.config, *tokens.shape)
    out = model.apply({"params": params}, tokens, cache=cache, capture=("hidden", "attention"))
    hidden = out.captured["hidden"]
    inner = {
        "x": hidden[0],
        "k": out.cache.keys[0],
        "v": out.cache.values[0],
        "attSm": out.captured["attention"][0],
        **{f"block{i}": hidden[i + 1] for i in range(model.config.num_layers)},
        "ln_f": out.hidden,
        "probs": jax.nn.softmax(out.logits),
    }
    sequences = np.random.default_rng(0).integers(0, 3, (SEQUENCES, 6))
    written = greedy(model, params, sequences.tolist(), 6)
    return {
        "largest_logit_difference": largest_difference(out.logits, want["lm_head"]),
        "largest_inner_difference": max(largest_difference(ours, want[name]) for name, ours in inner.items()),
        "inner_tensors": len(inner),
        "sequences": SEQUENCES,
        "sequences_sorted": sum(ids == sorted(ids) and sorted(row) == ids for row, ids in zip(sequences, written, strict=True)),
    }


def transliterator_facts(data: Path) -> dict[str, Any]:
    """An encoder-decoder of 182,731 parameters: greedy transliterations and their log-probabilities."""
    transliterator = read_transliterator(data / "pretrained" / "ct2_aren_transliteration")
    model, params = transliterator.trained
    found = {}
    for word in WORDS:
        source = transliterator.encode(word)
        ids = greedy(model, params, [[1]], 20, memory=encode_sources(model, params, [source]))[0]
        ids = ids[: ids.index(EOS) + 1]
        logits = model.apply({"params": params}, jnp.asarray([source]), jnp.asarray([[1, *ids[:-1]]])).logits
        scores = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.asarray(ids)[None, :, None], axis=-1)
        found[word] = {"text": transliterator.decode(ids), "log_probability": float(jnp.sum(scores))}
    return found


def greedy(model: Model, params: Any, prompts: Sequence[Sequence[int]], count: int, **more: Any) -> list[list[int]]:
    sampling = SamplingConfig(max_tokens=count, temperature=0.0)
    return np.concatenate(list(stream_tokens(model, params, prompts, sampling, **more))).T.tolist()  # type: ignore[arg-type]


def largest_difference(ours: Any, theirs: Any) -> float:
    return float(np.abs(np.asarray(ours) - theirs).max())
