"""The contrastive loss by hand; vectors as `inference.embed` makes them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.data.rows import Share
from jaxllm.finetune.tasks import SentenceEmbedding
from jaxllm.finetune.tasks.embedding import contrastive
from jaxllm.inference import embed
from jaxllm.models import init_params, make_model
from jaxllm.training import LossConfig
from tests.finetune.tasks.battery import ENCODER

TASK = SentenceEmbedding()


def test_contrastive_by_hand():
    vectors = np.random.default_rng(0).normal(size=(5, 3, 8)).astype(np.float32)
    weights = np.array([1, 1, 1, 0, 1], np.float32)  # the fourth is padding
    losses, right = contrastive(jnp.asarray(vectors), jnp.asarray(weights), 0.5)
    real = [0, 1, 2, 4]
    for row in real:
        scores = np.array([vectors[row, 0] @ vectors[other, text] for text in (1, 2) for other in real], np.float64) / 0.5
        own = vectors[row, 0] @ vectors[row, 1] / 0.5
        np.testing.assert_allclose(losses[row], np.log(np.exp(scores).sum()) - own, rtol=1e-4, atol=1e-5)
        assert bool(right[row]) == (own >= scores.max() - 1e-6)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_vectors_are_those_of_embed(open_task, pooling):
    task = dataclasses.replace(TASK, pooling=pooling)
    data = open_task("scores")
    config = task.headed(ENCODER)
    model = make_model(config)
    params = init_params(model, jax.random.key(0))
    rows = task.rows(data, config, "validation", seed=None)
    batch = jax.device_put(rows.batch(np.arange(7), Share()))
    vectors = task.vectors(model, params, batch, None)
    for text, feature in enumerate(("text", "text_pair")):
        texts = [rows.records[number][feature] for number in range(7)]
        np.testing.assert_allclose(vectors[:, text], embed(model, params, data.tokenizer, texts, pooling=pooling), atol=1e-5)


def test_scores_must_fit(open_task):
    task = SentenceEmbedding(loss="cosine", highest=1.0)
    with pytest.raises(ValueError, match=r"t:\d+: scores must lie from 0.0 to 1.0: got .*; set objective.lowest"):
        task.rows(open_task("scores"), task.headed(ENCODER), "train", seed=0)
    with pytest.raises(ValueError, match="needs a number for how alike .* data.label_feature='label' holds classes"):
        task.rows(open_task(pair_feature="id"), task.headed(ENCODER), "train", seed=0)
    with pytest.raises(ValueError, match="needs data.pair_feature"):
        task.check(task.headed(ENCODER), open_task().config, LossConfig())
