"""Learning rates by depth and by path, and layers that begin to learn one after the other."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxllm.training import OptimizerConfig, make_optimizer, scale_by_path
from jaxllm.training.depth import scale_by_depth

TREE = {
    "embed": {"table": jnp.ones((5, 2))},
    "layers": {"ffw": {"up": {"kernel": jnp.ones((3, 2, 2)), "lora": {"b": jnp.ones((3, 2))}}}},
    "final_norm": {"scale": jnp.ones(2)},
}


def factors(tree):
    """One number a layer of each parameter."""
    up = tree["layers"]["ffw"]["up"]
    np.testing.assert_array_equal(up["kernel"][:, 0, 0], up["lora"]["b"][:, 1])
    return [
        float(tree["embed"]["table"][0, 0]),
        *np.asarray(up["kernel"][:, 1, 1]).tolist(),
        float(tree["final_norm"]["scale"][0]),
    ]


def test_layer_decay():
    transform = scale_by_depth(0.5, None)
    got = transform.update(TREE, transform.init(TREE))[0]
    assert factors(got) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]


def test_layers_are_unfrozen_from_the_top():
    transform = scale_by_depth(1.0, 2)
    state, seen = transform.init(TREE), []
    for _ in range(9):
        got, state = transform.update(TREE, state)
        seen.append(sum(factors(got)))
    assert seen == [1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_encoder_and_decoder_count_their_own_layers_and_layers_may_come_apart():
    decoder = {"layers": tuple({"norm": jnp.ones(1)} for _ in range(2)), "unembed": {"kernel": jnp.ones((1, 1))}}
    tree = {"encoder": TREE, "decoder": decoder}
    transform = scale_by_depth(0.5, None)
    got = transform.update(tree, transform.init(tree))[0]
    assert factors(got["encoder"]) == [1 / 16, 1 / 8, 1 / 4, 1 / 2, 1]
    assert [float(layer["norm"][0]) for layer in got["decoder"]["layers"]] == [1 / 4, 1 / 2]
    assert float(got["decoder"]["unembed"]["kernel"][0, 0]) == 1


def test_a_multiplier_by_path():
    transform = scale_by_path(lambda path: 3.0 if path.endswith("/b") else 1.0)
    got = transform.update(TREE, transform.init(TREE), TREE)[0]
    assert float(got["layers"]["ffw"]["up"]["lora"]["b"][0, 0]) == 3 and factors({**got, "layers": TREE["layers"]})[1] == 1


def test_the_optimizer_does_as_its_config_says():
    """Behind the update rule, so that weight decay is scaled, too; and a frozen layer does not move at all."""
    config = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.0, clip_norm=None, layer_decay=0.5, unfreeze_every=1)
    rule, _ = make_optimizer(config, 10)
    state = rule.init(TREE)
    updates, state = rule.update(TREE, state, TREE)
    assert [value != 0 for value in factors(updates)] == [False, False, False, False, True]
    updates, state = rule.update(TREE, state, TREE)
    np.testing.assert_allclose(updates["layers"]["ffw"]["up"]["kernel"][2], -0.1 * (1 + 0.1) * 0.5 * np.ones((2, 2)), rtol=0.05)
    rule, _ = make_optimizer(config, 10, lambda rule: optax.chain(rule, optax.scale(3.0)))  # what a method does is behind it
    np.testing.assert_allclose(rule.update(TREE, rule.init(TREE), TREE)[0]["final_norm"]["scale"], -0.3, rtol=1e-6)


def test_layers_that_nobody_counts_are_refused():
    """Without them an embedding would learn as fast as the last layer."""
    alone = {"embed": TREE["embed"], "final_norm": TREE["final_norm"]}
    for tree, path in ((alone, "embed/table"), ({"encoder": alone, "decoder": TREE}, "encoder/embed/table")):
        transform = scale_by_depth(0.5, None)
        with pytest.raises(ValueError, match=f"count layers by those that learn: {path} learns, and no layer above it"):
            transform.update(tree, transform.init(tree))
    top = {"final_norm": TREE["final_norm"], "head": {"bias": jnp.ones(1)}}
    assert float(scale_by_depth(0.5, 1).update(top, scale_by_depth(0.5, 1).init(top))[0]["head"]["bias"][0]) == 1


@pytest.mark.parametrize(("field", "value"), [("layer_decay", 1.5), ("unfreeze_every", 0)])
def test_bad_settings_are_refused(field, value):
    with pytest.raises(ValueError, match=f"optimizer.{field} must be .*: got {value}"):
        OptimizerConfig(**{field: value})
