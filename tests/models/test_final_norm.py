"""Whether the last hidden state is normalized: by default where the blocks leave it as it is, or as the config says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.models import HeadConfig, Transformer, TransformerConfig, VisionConfig, init_params, make_model

SIZE = {"num_layers": 2, "embed_dim": 8, "num_heads": 2, "causal": False, "init_std": 0.5}


def normalized(x):
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("final_norm", [None, True, False])
def test_the_last_hidden_state(placement, final_norm):
    config = TransformerConfig(vocab_size=5, norm_placement=placement, final_norm=final_norm, **SIZE)
    model = Transformer(config)
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    params["layers"]["ffw_norm"]["bias"] += 1.0  # else a norm of a norm would change nothing
    output = jax.jit(lambda p: model.apply({"params": p}, jnp.arange(5)[None], capture=["hidden"]))(params)
    last, expected = np.asarray(output.captured["hidden"][-1]), placement == "pre" if final_norm is None else final_norm
    assert ("final_norm" in params) == expected
    np.testing.assert_allclose(output.hidden, normalized(last) if expected else last, atol=1e-5)
    assert not np.allclose(last, normalized(last), atol=0.1)


def test_of_an_image():
    encoder = TransformerConfig(position="none", norm_placement="post", final_norm=True, **SIZE)
    model = make_model(VisionConfig(image_size=4, patch_size=2, num_labels=3, encoder=encoder))
    params = jax.jit(lambda key: init_params(model, key))(jax.random.key(0))
    params["layers"]["ffw_norm"]["bias"] += 1.0
    output = jax.jit(lambda p: model.apply({"params": p}, jnp.ones((1, 4, 4, 3)), capture=["hidden"]))(params)
    np.testing.assert_allclose(output.hidden, normalized(np.asarray(output.captured["hidden"][-1])), atol=1e-5)


def test_names_of_labels_are_as_many_as_labels():
    assert HeadConfig(kind="sequence", num_labels=2, label_names=("no", "yes")).label_names == ("no", "yes")
    with pytest.raises(ValueError, match="head.label_names must be num_labels names: got 1 for 2"):
        HeadConfig(kind="sequence", num_labels=2, label_names=("no",))
    with pytest.raises(ValueError, match="label_names must be num_labels names: got 1 for 2"):
        encoder = TransformerConfig(causal=False, position="none")
        VisionConfig(num_labels=2, label_names=("no",), encoder=encoder)
