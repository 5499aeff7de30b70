"""Noise on embeddings: its size for each text of a row, where it is left out, and the same on every mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.finetune import PromptTuning, PTuning, adapt, begin_params
from jaxllm.models import EncoderDecoder, Transformer
from jaxllm.sharding import MeshConfig, make_mesh, use_mesh
from jaxllm.training import LossConfig, LossSums
from jaxllm.training.neftune import noise_scale, noisy
from tests.models.options import tiny, tiny_encoder, tiny_pair
from tests.models.programs import parameters

CONFIG = tiny("llama", dropout=0.0)
TOKENS = np.random.default_rng(0).integers(1, 48, (4, 12)).astype(np.int32)
SEGMENTS = np.repeat([[1] * 3 + [2] * 5 + [0] * 4], 4, axis=0).astype(np.int32)


def hidden(alpha, key, config=CONFIG, mesh=None, capture="hidden"):
    """What the first block of a model reads, as the gradient of a loss would see it."""
    model, found = Transformer(config), []

    def loss(params, batch, dropout_key):
        out = model.apply({"params": params}, batch["tokens"], segment_ids=batch["segment_ids"], dropout_key=dropout_key,
                          capture=(capture,))  # fmt: skip
        found.append(out.captured[capture])  # type: ignore[union-attr]
        return LossSums.zeros()

    def run(params, batch):
        noisy(loss, alpha)(params, batch, key)
        return found.pop()[0]

    batch = {"tokens": TOKENS, "segment_ids": SEGMENTS}
    program = jax.jit(run)
    if mesh is None:
        return np.asarray(program(parameters(config), batch))
    with use_mesh(make_mesh(mesh, 4)):
        return np.asarray(program(parameters(config), batch))


def test_the_scale_is_that_of_each_text():
    scale = np.asarray(noise_scale(jnp.asarray(SEGMENTS), 5.0, 16))
    np.testing.assert_allclose(scale[0], [5 / np.sqrt(3 * 16)] * 3 + [5 / np.sqrt(5 * 16)] * 5 + [0.0] * 4, rtol=1e-6)


def test_noise_is_uniform_of_that_size():
    key = jax.random.key(1)
    clean, noised = hidden(0.0, key), hidden(5.0, key)
    noise = noised - clean
    scale = np.asarray(noise_scale(jnp.asarray(SEGMENTS), 5.0, CONFIG.embed_dim))[..., None]
    assert (np.abs(noise) <= scale + 1e-6).all() and np.abs(noise[:, 8:]).max() == 0
    shares = (noise[:, :8] / scale[:, :8]).ravel()
    assert shares.std() == pytest.approx(3**-0.5, rel=0.1) and np.abs(shares).max() > 0.97
    np.testing.assert_array_equal(hidden(5.0, key), noised)
    assert np.abs(hidden(5.0, jax.random.key(2)) - noised).max() > 0.1
    np.testing.assert_array_equal(hidden(5.0, None), clean)  # an evaluation
    for explicit in (False, True):
        np.testing.assert_allclose(hidden(5.0, key, mesh=MeshConfig(data=2, tensor=2, explicit=explicit)), noised, atol=1e-6)


@pytest.mark.parametrize("method", [PromptTuning(tokens=3), PTuning(tokens=3, hidden=4)], ids=lambda m: type(m).__name__)
def test_virtual_tokens_before_an_encoders_text_have_no_noise(method):
    config = tiny_encoder("bert")
    model, found = adapt(Transformer(config), method), []
    base = parameters(config)

    def loss(params, batch, dropout_key):
        out = model.apply({"params": params}, jnp.asarray(TOKENS), dropout_key=dropout_key, capture=("hidden",))
        found.append(out.captured["hidden"][0])  # type: ignore[union-attr]
        return LossSums.zeros()

    def run(alpha):
        noisy(loss, alpha)(begin_params(model, jax.random.key(0), base), {}, jax.random.key(0))
        return found.pop()

    clean, noised = jax.jit(lambda: (run(0.0), run(5.0)))()
    np.testing.assert_array_equal(clean[:, :3], noised[:, :3])
    assert (np.abs(clean[:, 3:] - noised[:, 3:]).max(axis=2) > 0.01).all()


def test_without_it_the_loss_is_the_same_one():
    loss = lambda params, batch, key: LossSums.zeros()  # noqa: E731
    assert noisy(loss, 0.0) is loss
    with pytest.raises(ValueError, match="loss.neftune must be at least 0: got -1"):
        LossConfig(neftune=-1.0)


def test_of_an_encoder_decoder_what_is_read_is_noisy():
    model, config = EncoderDecoder(tiny_pair("t5")), tiny_pair("t5")
    found = []

    def loss(params, batch, dropout_key):
        out = model.apply(
            {"params": params}, jnp.asarray(TOKENS), jnp.asarray(TOKENS[:, :5]), dropout_key=dropout_key, capture=("hidden",)
        )
        found.append((out.encoder.captured["hidden"][0], out.captured["hidden"][0]))  # type: ignore[union-attr]
        return LossSums.zeros()

    def run(alpha):
        noisy(loss, alpha)(parameters(config), {}, jax.random.key(0))
        return found.pop()

    clean, noised = jax.jit(lambda: (run(0.0), run(5.0)))()
    assert np.abs(clean[0] - noised[0]).max() > 0.1
    np.testing.assert_array_equal(clean[1], noised[1])
