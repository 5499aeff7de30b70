import jax.numpy as jnp
import numpy as np
import pytest
from jax import grad, random

from jaxllm.models import Transformer, init_params
from jaxllm.training.objectives import PrefixLM
from tests.training.objectives.battery import DECODER


@pytest.mark.parametrize("packing", ["concat", "fit"])
@pytest.mark.parametrize("across", [False, True])
def test_each_document_has_a_prefix_and_targets_after_it(open_set, packing, across):
    data = open_set(packing=packing, cross_document_attention=across)
    source = PrefixLM().rows(data, DECODER, "train", seed=0)
    batch, base = source.rows(np.arange(300)), source.base.rows(np.arange(300))
    shares = []
    for k in range(300):
        for segment in range(1, batch["segment_ids"][k].max() + 1):
            inside = batch["segment_ids"][k] == segment
            prefix, weights = batch["prefix"][k][inside], batch["loss_weights"][k][inside]
            length = prefix.sum()
            assert length >= 1 and prefix[:length].all()
            assert length < inside.sum() or inside.sum() == 1
            shares.append(length / inside.sum()) if inside.sum() > 8 else None
            # The last token of the prefix predicts the first that is hidden; before it, nothing is to be predicted.
            assert not weights[: length - 1].any()
            assert (weights[length - 1 :] == base["loss_weights"][k][inside][length - 1 :]).all()
    assert not batch["prefix"][batch["segment_ids"] == 0].any()
    assert abs(np.mean(shares) - 0.5) < 0.05 and np.std(shares) > 0.2


def test_targets_do_not_see_themselves(open_set):
    """The logits that predict a counted target do not depend on its embedding; those in the prefix do see what comes."""
    data = open_set()
    batch = PrefixLM().rows(data, DECODER, "train", seed=0).rows(np.arange(1))
    model = Transformer(DECODER)
    params = init_params(model, random.key(0))
    given = {name: jnp.asarray(batch[name]) for name in ("positions", "segment_ids")}

    def hidden(shift, at):
        """With one row of the table for each place of the text, so that each place can be shifted by itself."""
        table = params["embed"]["table"]
        own = {**params, "embed": {"table": table.at[:32].set(table[batch["tokens"][0]] + shift)}}
        out = model.apply(
            {"params": own}, jnp.arange(32)[None], prefix=jnp.asarray(batch["prefix"]) > 0, unembed=False, **given
        )
        return out.hidden[0, at] @ jnp.arange(16.0)  # type: ignore[union-attr]

    shift = jnp.zeros((32, 16))
    prefix = batch["prefix"][0]
    places = np.flatnonzero(batch["loss_weights"][0][:-1])
    for at in places[:4]:
        assert not jnp.abs(grad(hidden)(shift, int(at))[at + 1]).any()
    inside = np.flatnonzero(prefix[:-1] & prefix[1:])
    assert jnp.abs(grad(hidden)(shift, int(inside[0]))[inside[0] + 1]).any()
