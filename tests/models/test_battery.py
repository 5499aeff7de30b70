"""What every option of the decoder must keep: the reference's numbers, causality, packing, the cache, the mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import Transformer, abstract_params, init_cache, init_params, unstack_layers
from jaxllm.sharding import MeshConfig, batch_sharding, make_mesh, shardings_for, use_mesh
from tests.models import reference
from tests.models.options import OPTIONS, tiny

T = 12
every_option = pytest.mark.parametrize("name", OPTIONS)


def build(name: str, **more):
    model = Transformer(tiny(name, **more))
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    # Scales and biases away from 1 and 0, so that one that is left out shows.
    noise = jax.tree.map(lambda p: p + 0.1 * jnp.sin(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), params)
    return model, noise


def row(model: Transformer, seed: int = 1):
    """Distinct tokens, so that a row of the embedding belongs to one place in the text."""
    return jax.random.permutation(jax.random.key(seed), model.config.vocabulary)[None, :T].astype(jnp.int32)


@every_option
def test_equals_the_reference(name):
    model, params = build(name)
    tokens = row(model)
    got = jax.jit(lambda p, t: model.apply({"params": p}, t).logits)(params, tokens)
    want = reference.logits(np.asarray(tokens[0]), jax.tree.map(lambda p: np.asarray(p, np.float64), params), model.config)
    np.testing.assert_allclose(got[0], want, atol=2e-5, rtol=1e-5)


@every_option
def test_no_token_sees_a_later_one_or_another_document(name):
    """The gradient of early logits with respect to later tokens' embeddings is exactly 0; and of either document's logits
    with respect to the other's embeddings. The output matrix is separate here, so that only attention could mix them.
    """
    model, params = build(name, tie_embeddings=False)
    tokens = row(model)

    def chosen(table, positions, segment_ids, weights):
        p = {**params, "embed": {"table": table}}
        logits = model.apply({"params": p}, tokens, positions=positions, segment_ids=segment_ids).logits
        return jnp.sum(jnp.square(logits) * weights[None, :, None])

    gradient = jax.jit(jax.grad(chosen))
    time = jnp.arange(T)

    def seen(positions, segment_ids, weights):
        """How much the chosen logits depend on each token."""
        whole = gradient(params["embed"]["table"], positions[None], segment_ids[None], weights.astype(jnp.float32))
        return jnp.abs(whole[tokens[0]]).max(axis=1)

    early = seen(time, jnp.ones_like(time), time < 5)
    assert (early[5:] == 0).all() and (early[:5] > 0).all()

    split = 7
    second = time >= split
    positions, segments = jnp.where(second, time - split, time), 1 + second.astype(jnp.int32)
    of_second, of_first = seen(positions, segments, second), seen(positions, segments, ~second)
    assert (of_second[:split] == 0).all() and (of_second[split:] > 0).all()
    assert (of_first[split:] == 0).all() and (of_first[:split] > 0).all()


@every_option
def test_packed_equals_alone(name):
    model, params = build(name)
    tokens, split = row(model), 7
    positions = jnp.concatenate([jnp.arange(split), jnp.arange(T - split)])[None]
    segments = (1 + (jnp.arange(T) >= split).astype(jnp.int32))[None]
    forward = jax.jit(lambda t, p, s: model.apply({"params": params}, t, positions=p, segment_ids=s).logits)
    packed = forward(tokens, positions, segments)
    # The second document alone, followed by padding to the same length.
    rolled = jnp.roll(tokens, -split, axis=1)
    padding = (jnp.arange(T) < T - split).astype(jnp.int32)[None]
    alone = forward(rolled, jnp.arange(T)[None], padding)
    np.testing.assert_allclose(packed[0, split:], alone[0, : T - split], atol=1e-5)


@every_option
def test_cached_decoding_equals_the_full_forward(name):
    model, params = build(name)
    tokens = jnp.concatenate([row(model, 1), row(model, 2)])
    full = jax.jit(lambda t: model.apply({"params": params}, t).logits)(tokens)
    stacked = model.config.layer_loop == "scan"
    layers = params["layers"] if stacked else unstack_layers(params["layers"], model.config.num_layers)
    call = jax.jit(lambda t, cache: model.apply({"params": {**params, "layers": layers}}, t, cache=cache))
    output = call(tokens[:, :7], init_cache(model.config, 2, 16, stacked=stacked))
    pieces = [output.logits]
    for t in range(7, T):
        output = call(tokens[:, t : t + 1], output.cache)
        pieces.append(output.logits)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), full, atol=1e-5)


@every_option
def test_explicit_mesh_gives_the_same_loss_and_gradient(name):
    """In Explicit mode a layout slip is an error while tracing; heads, widths and batch are all split here."""
    model, params = build(name, layer_loop="scan")  # one block to compile instead of two
    tokens = jnp.concatenate([row(model, seed) for seed in range(4)])

    def loss(params, tokens):
        return jnp.mean(jax.nn.logsumexp(model.apply({"params": params}, tokens).logits, axis=-1))

    want, want_grad = jax.jit(jax.value_and_grad(loss))(params, tokens)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2, explicit=True))
    placed = jax.device_put(params, shardings_for(params, abstract_params(model)[1], mesh))
    with use_mesh(mesh):
        got, got_grad = jax.jit(jax.value_and_grad(loss))(placed, jax.device_put(tokens, batch_sharding(mesh)))
    assert abs(got - want) < 1e-5
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got_grad, want_grad)
