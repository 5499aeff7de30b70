"""Adapters merged and taken out, exchanged, combined, and one for each row of a batch."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

from jaxllm.finetune import IA3, AdaLoRA, BitFit, Bottleneck, LoRA, PrefixTuning, PromptTuning, PTuning, VeRA, adapt
from jaxllm.finetune.operations import (
    blank_adapter,
    combine,
    merge,
    stack_adapters,
    take_adapter,
    take_base,
    unmerge,
    with_rows,
)
from jaxllm.models import make_model, overlay
from tests.finetune.programs import FAMILIES, forward, fresh, inputs_of, moved
from tests.models.options import tiny_pair
from tests.models.programs import parameters

LLAMA, GPT = FAMILIES["llama"], FAMILIES["gpt"]
EVERY = ("all-linear",)
LORA = LoRA(rank=3, targets=EVERY, also=())


def adapters_of(method, config, count):
    return [take_adapter(method, moved(method, fresh(method, config), seed)) for seed in range(count)]


def equal(one, other):
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        np.array_equal(a, b) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )


@pytest.mark.parametrize("method", [LORA, IA3()], ids=lambda method: type(method).__name__)
def test_unmerged_is_the_base_bit_by_bit(method):
    base, model = parameters(GPT), adapt(make_model(GPT), method)
    params = moved(method, fresh(method, GPT))
    merged = merge(model, params)
    assert type(merged.model) is type(make_model(GPT))
    assert equal(unmerge(merged), base) and not equal(merged.params, base)
    assert equal(take_base(method, params), base)
    assert equal(overlay(base, take_adapter(method, params)), params)


def test_biases_that_learn_are_an_adapter_too():
    base, params = parameters(GPT), moved(BitFit(), fresh(BitFit(), GPT))
    merged = merge(adapt(make_model(GPT), BitFit()), params)
    assert equal(merged.params, params) and equal(unmerge(merged), params) and not equal(params, base)
    assert equal(overlay(base, take_adapter(BitFit(), params)), params)


def test_an_adapted_embedding_leaves_a_tied_output_matrix_as_it_is():
    """Merged, the output matrix has numbers of its own."""
    method, inputs = LoRA(rank=3, targets=("embed",)), inputs_of(GPT)
    params = moved(method, fresh(method, GPT))
    merged = merge(adapt(make_model(GPT), method), params)
    assert not merged.model.config.tie_embeddings
    want = forward(method, GPT)(params, inputs)
    np.testing.assert_allclose(forward(None, merged.model.config)(merged.params, inputs), want, atol=1e-4)
    assert equal(unmerge(merged), parameters(GPT))


def test_an_adapted_embedding_of_a_decoder_likewise():
    config, method = tiny_pair("separate"), LoRA(rank=3, targets=("embed",))
    params, inputs = moved(method, fresh(method, config)), inputs_of(config)
    merged = merge(adapt(make_model(config), method), params)
    assert config.decoder.tie_embeddings and not merged.model.config.decoder.tie_embeddings
    want = forward(method, config)(params, inputs)
    assert np.abs(want - forward(None, config)(parameters(config), inputs)).max() > 0.1
    np.testing.assert_allclose(forward(None, merged.model.config)(merged.params, inputs), want, atol=1e-4)
    assert equal(unmerge(merged), parameters(config))


def test_an_embedding_that_two_stacks_share_may_be_excluded():
    config = tiny_pair("t5")
    with pytest.raises(ValueError, match="must not mean an embedding that encoder and decoder share: exclude 'embed'"):
        adapt(make_model(config), LoRA(targets=("*",)))
    adapt(make_model(config), LoRA(targets=("*",), exclude=("embed",)))


def test_a_method_that_cannot_be_merged_says_so():
    method = Bottleneck(bottleneck_dim=2)
    with pytest.raises(ValueError, match="Bottleneck cannot be merged"):
        merge(adapt(make_model(GPT), method), fresh(method, GPT))


ROWS = {
    "lora": LORA,
    "dora": dataclasses.replace(LORA, dora=True),
    "pissa": dataclasses.replace(LORA, initialization="pissa"),
    "embeddings": LoRA(rank=2, targets=("embed", "query"), also=()),
    "adalora": AdaLoRA(init_rank=3, target_rank=2, also=()),
    "ia3": IA3(also=()),
    "houlsby": Bottleneck(kind="houlsby", bottleneck_dim=3, also=()),
    "vera": VeRA(rank=5, targets=EVERY, also=()),
    "prefix": PrefixTuning(tokens=3, initialization="random", also=()),
    "prompt": PromptTuning(tokens=3, also=()),
}


@pytest.mark.parametrize("name", [name for name in ROWS if name not in ("prefix", "prompt")])
def test_adapters_are_exchanged_and_switched_off_in_one_program(name):
    """Off means the base's numbers, those of DoRA and PiSSA but for rounding."""
    method, base, inputs, traced = ROWS[name], parameters(LLAMA), inputs_of(LLAMA), []
    model = adapt(make_model(LLAMA), method)

    def logits(params, inputs):
        traced.append(None)
        return model.apply({"params": params}, **inputs).logits

    call, found = jax.jit(logits), []
    for adapter in (*adapters_of(method, LLAMA, 2), blank_adapter(model, base)):
        found.append(call(overlay(base, adapter), inputs))
    assert len(traced) == 1
    want = np.asarray(forward(None, LLAMA)(base, inputs))
    rounding = 1e-6 * np.abs(want).max() if name in ("dora", "pissa") else 0
    np.testing.assert_allclose(found[2], want, rtol=0, atol=rounding)
    assert np.abs(found[0] - found[1]).max() > 1e-3 and np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize("name", ROWS)
def test_without_its_adapter_it_is_the_base_bit_by_bit(name):
    method, base = ROWS[name], parameters(LLAMA)
    assert equal(take_base(method, moved(method, fresh(method, LLAMA))), base)


@pytest.mark.parametrize("name", ROWS)
def test_each_row_with_its_own_adapter_equals_each_alone(name):
    method, base, inputs = ROWS[name], parameters(LLAMA), inputs_of(LLAMA)
    model = adapt(make_model(LLAMA), method)
    adapters = [*adapters_of(method, LLAMA, 2), blank_adapter(model, base, jax.random.key(7))]
    stacked, rows = stack_adapters(adapters), np.asarray([1, 0, 2, 1], np.int32)
    traced = []

    @jax.jit
    def logits(base, stacked, rows, inputs):
        traced.append(None)
        return model.apply({"params": with_rows(base, stacked, rows)}, **inputs).logits

    found, other = (logits(base, stacked, chosen, inputs) for chosen in (rows, rows[::-1].copy()))
    assert len(traced) == 1
    alone = [forward(method, LLAMA)(overlay(base, adapter), inputs) for adapter in adapters]
    for row, number in enumerate(rows):
        np.testing.assert_allclose(found[row], alone[number][row], atol=1e-5)
        np.testing.assert_allclose(other[3 - row], alone[number][3 - row], atol=1e-5)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_adapters_of_other_ranks_share_a_batch_and_others_are_refused():
    small, large = LORA, dataclasses.replace(LORA, rank=4)
    stacked = stack_adapters([adapters_of(small, LLAMA, 1)[0], adapters_of(large, LLAMA, 1)[0]])
    assert stacked["layers"]["ffw"]["up"]["lora"]["a"].shape == (2, 2, 16, 4)
    with pytest.raises(ValueError, match="must change the same modules: layers/"):
        stack_adapters([adapters_of(method, LLAMA, 1)[0] for method in (LORA, LoRA(rank=3, also=()))])
    whole = LoRA(rank=3, also=("final_norm/*",))
    with pytest.raises(ValueError, match="final_norm/scale has learnt"):
        stack_adapters(adapters_of(whole, LLAMA, 2))


def test_rows_of_no_adapter_are_refused():
    method, base = ROWS["ia3"], parameters(LLAMA)
    stacked = stack_adapters(adapters_of(method, LLAMA, 2))
    for wrong in (2, -1):
        with pytest.raises(ValueError, match=f"rows must be in 0..1, the adapters that were stacked: got {wrong}"):
            with_rows(base, stacked, np.asarray([0, wrong]))
    key = lambda rows: with_rows(base, stacked, rows)["layers"]["attention"]["key"]["ia3"]["output"]  # noqa: E731
    np.testing.assert_array_equal(jax.jit(key)(np.asarray([2, -1])), key(np.asarray([1, 0])))


def test_virtual_tokens_of_one_batch_are_as_many_and_no_network():
    with pytest.raises(ValueError, match="must have as many virtual tokens: got .* for prompt/table"):
        stack_adapters([adapters_of(PromptTuning(tokens=n, also=()), LLAMA, 1)[0] for n in (2, 3)])
    with pytest.raises(ValueError, match="of the network that makes them; take the adapter of method.settle"):
        stack_adapters(adapters_of(PTuning(tokens=2, hidden=4, also=()), LLAMA, 2))


@pytest.mark.parametrize("kind", ["cat", "svd", "linear"])
def test_combined_adapters(kind):
    """cat, and svd of enough ranks, give the weighted sum of what is added to each kernel."""
    base, weights = parameters(LLAMA), [0.7, -0.4]
    adapters = adapters_of(LORA, LLAMA, 2)
    method, found = combine(LORA, adapters, weights, kind, rank=6)
    kernels = [LORA.merge(overlay(base, adapter)) for adapter in adapters]
    got = method.merge(overlay(base, found))
    for name in ("query", "output"):
        kernel = lambda tree, name=name: np.asarray(tree["layers"]["attention"][name]["kernel"])  # noqa: E731
        want = kernel(base) + sum(w * (kernel(tree) - kernel(base)) for w, tree in zip(weights, kernels, strict=True))
        if kind == "linear":
            own = [adapter["layers"]["attention"][name]["lora"] for adapter in adapters]
            sign = [np.sign(w) * np.sqrt(abs(w) * 16 / 3) for w in weights]
            a = sum(s * np.asarray(o["a"]) for s, o in zip(sign, own, strict=True))
            b = sum(abs(s) * np.asarray(o["b"]) for s, o in zip(sign, own, strict=True))
            want = kernel(base) + (a.reshape(2, -1, 3) @ b.reshape(2, 3, -1)).reshape(kernel(base).shape)
        np.testing.assert_allclose(kernel(got), want, atol=1e-5)
    assert method.rank == {"cat": 6, "svd": 6, "linear": 3}[kind] and method.alpha == method.rank


def test_bad_combinations_are_refused():
    adapters = adapters_of(LORA, LLAMA, 1) + adapters_of(dataclasses.replace(LORA, rank=2), LLAMA, 1)
    with pytest.raises(ValueError, match="needs adapters of one rank: those of layers/"):
        combine(LORA, adapters, [1.0, 1.0], "linear")
    with pytest.raises(ValueError, match="one weight an adapter: got 1 for 2"):
        combine(LORA, adapters, [1.0])
    with pytest.raises(ValueError, match="without dora"):
        combine(dataclasses.replace(LORA, dora=True), adapters, [1.0, 1.0])
    dora = dataclasses.replace(LORA, dora=True)
    with pytest.raises(ValueError, match="must be LoRA without dora and lora_bias: one has magnitude"):
        combine(LORA, [adapters[0], take_adapter(dora, fresh(dora, LLAMA))], [1.0, 1.0])
    with pytest.raises(ValueError, match="kind must be linear, cat or svd: got 'ties'"):
        inspect.unwrap(combine)(LORA, adapters, [1.0, 1.0], "ties")
    with pytest.raises(ValueError, match="rank must be at least 1: got 0"):
        combine(LORA, adapters, [1.0, 1.0], "svd", rank=0)
