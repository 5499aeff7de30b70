"""The Transformer of "Attention Is All You Need" (arXiv:1706.03762) is a config, and learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxllm.inference import SamplingConfig, beam_search, encode_sources
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig, init_params, make_model

WIDTH, LEN, VOCAB = 32, 5, 12
SIZE = {
    "vocab_size": VOCAB,
    "context_len": 16,
    "num_layers": 1,
    "embed_dim": WIDTH,
    "num_heads": 4,
    "activation": "relu",
    "position": "sinusoidal",
    "norm_placement": "post",
    "embed_scale": WIDTH**0.5,
    "init_std": WIDTH**-0.5,
}
CONFIG = EncoderDecoderConfig(
    encoder=TransformerConfig(causal=False, head=HeadConfig(kind="none"), **SIZE),
    decoder=TransformerConfig(cross_attention=True, **SIZE),
    start_id=0,
)


def test_it_learns_to_copy():
    """And what it then writes are texts that it has not seen."""
    model = make_model(CONFIG)
    optimizer = optax.adam(6e-3, b2=0.98)
    texts = jax.random.randint(jax.random.key(1), (120, 64, LEN), 1, VOCAB)

    def loss(params, source):
        shifted = jnp.pad(source[:, :-1], ((0, 0), (1, 0)))
        logits = model.apply({"params": params}, source, shifted).logits
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, source))

    def step(carry, source):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params, source)
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value

    @jax.jit
    def train(key):
        params = init_params(model, key)
        (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), texts)
        return params, losses

    params, losses = train(jax.random.key(0))
    losses = np.asarray(losses)
    assert losses[0] > 2.0 and losses[-1] < 0.1
    new = np.random.default_rng(2).integers(1, VOCAB, (16, LEN)).tolist()
    assert not {tuple(text) for text in new} & {tuple(text) for text in np.asarray(texts).reshape(-1, LEN).tolist()}
    sampling, memory = SamplingConfig(max_tokens=LEN, num_beams=2), encode_sources(model, params, new)
    written = beam_search(model, params, [[0]] * len(new), sampling, memory=memory)
    assert np.mean(np.all(np.equal(written, new), axis=1)) > 0.9
