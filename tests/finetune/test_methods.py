"""What every method must keep, whatever it is: a fresh one changes nothing, merged equals applied, what does not learn stays
as it is, and every mesh, loop and cache gives the same. A new method is a row."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxllm.finetune import (
    IA3,
    AdaLoRA,
    BitFit,
    Bottleneck,
    Freeze,
    Full,
    LoRA,
    PrefixTuning,
    PromptTuning,
    PTuning,
    VeRA,
    adapt,
    wrapped,
)
from jaxllm.finetune.lora import merge_module
from jaxllm.finetune.operations import merge
from jaxllm.models import (
    HeadConfig,
    TransformerConfig,
    VisionConfig,
    abstract_params,
    init_cache,
    label_logits,
    make_model,
    path_of,
    paths,
)
from jaxllm.sharding import MeshConfig
from jaxllm.training import OptimizerConfig, make_optimizer
from tests.finetune.programs import FAMILIES, T, forward, fresh, inputs_of, moved, train
from tests.models.programs import parameters
from tests.quick import some

EVERY = ("all-linear",)
METHODS = {
    "full": Full(),
    "freeze": Freeze(patterns=("layers/*",)),
    "bitfit": BitFit(),
    "lora": LoRA(rank=3, targets=EVERY, lora_plus_ratio=4.0),
    "lora by layer": LoRA(
        rank=3, targets=("attention/*", "layers/1/ffw/up"), rank_patterns=(("layers/1/*", 2), ("query", 4)), exclude=("key",),
        alpha_patterns=(("layers/0/*", 3.0),), rank_stabilized=True, initialization="gaussian",
    ),
    "dropout": LoRA(rank=3, dropout=0.3),
    "dora dropout": LoRA(rank=3, targets=EVERY, dora=True, dropout=0.3, lora_plus_ratio=4.0),
    "dora": LoRA(rank=3, targets=EVERY, dora=True, layers=(1,)),
    "pissa": LoRA(rank=3, targets=EVERY, initialization="pissa"),
    "embeddings": LoRA(rank=3, targets=("embed", "unembed", "query"), also=("final_norm/*",)),
    "tied": LoRA(rank=3, targets=("embed", "query")),
    "lora bias": LoRA(rank=3, lora_bias=True, bias="all"),
    "adalora": AdaLoRA(init_rank=4, target_rank=2, tinit=0, tfinal=1),
    "ia3": IA3(),
    "houlsby": Bottleneck(kind="houlsby", bottleneck_dim=3, activation="gelu"),
    "pfeiffer": Bottleneck(kind="pfeiffer", bottleneck_dim=3),
    "parallel": Bottleneck(kind="parallel", bottleneck_dim=3, scaling=4.0),
    "vera": VeRA(rank=5, targets=EVERY),
}  # fmt: skip
SOFT = {
    "prefix": PrefixTuning(tokens=3, initialization="random"),
    "prefix network": PrefixTuning(tokens=3, projection=True, hidden=6),
    "prompt": PromptTuning(tokens=3),
    "p-tuning": PTuning(tokens=3, hidden=6),
}
"""Methods that change something from the start; tests/finetune/test_prompts.py says what."""
NOT_MERGED = ("houlsby", "pfeiffer", "parallel")
QUICK = (
    "gpt-lora by layer", "gpt-tied", "gpt-lora bias", "gpt-dora", "gpt-bitfit", "bert-houlsby", "bert-lora", "t5-adalora",
    "t5-ia3", "vit-vera", "llama-lora", "llama-pissa", "llama-embeddings", "llama-adalora", "llama-parallel",
)  # fmt: skip
"""What is tried on which model in each run of the tests; all on all with -m slow, some 10 minutes on two cores."""
IMPOSSIBLE = (
    "llama-lora bias",
    "t5-lora bias",
    "t5-bitfit",
    "llama-bitfit",
    "t5-embeddings",
    "t5-tied",
    "vit-tied",
    "gpt-embeddings",
    "bert-embeddings",
    "vit-embeddings",
    "t5-lora by layer",
)
PAIRS = [f"{family}-{name}" for family in FAMILIES for name in METHODS if METHODS[name].leaf or name == "bitfit"]
OTHERWISE: dict[str, str] = {
    "full": "", "freeze": "", "lora by layer": "auto", "lora": "explicit", "dora": "stages", "pissa": "pieces",
    "embeddings": "explicit", "adalora": "explicit", "ia3": "auto", "houlsby": "stages", "vera": "pieces",
    "dora dropout": "", "bitfit": "", "pfeiffer": "auto", "parallel": "explicit", "prefix": "pieces",
    "prefix network": "auto", "prompt": "explicit", "p-tuning": "pieces",
}  # fmt: skip
"""Methods that are trained, and in which other way in each run of the tests; in all with -m slow."""
LLAMA = FAMILIES["llama"]
BIASED = dataclasses.replace(LLAMA, bias=True)


@pytest.mark.parametrize("pair", some([pair for pair in PAIRS if pair not in IMPOSSIBLE], QUICK))
def test_fresh_changes_nothing_and_merged_equals_applied(pair):
    family, _, name = pair.partition("-")
    method, config = METHODS[name], FAMILIES[family]
    inputs, base = inputs_of(config), parameters(config)
    want = np.asarray(forward(None, config)(base, inputs))
    begun = fresh(method, config)
    largest = np.abs(want).max()
    exact = not getattr(method, "dora", False) and getattr(method, "initialization", None) != "pissa"
    np.testing.assert_allclose(forward(method, config)(begun, inputs), want, rtol=0, atol=0 if exact else 1e-6 * largest)
    changed = moved(method, begun)
    applied = np.asarray(forward(method, config)(changed, inputs))
    assert np.abs(applied - want).max() > 1e-3
    if name in NOT_MERGED:
        assert method.merge(changed) is None
        return
    assert jax.tree.structure(jax.jit(method.merge)(changed)) == jax.tree.structure(base)
    merged = merge(adapt(make_model(config), method), changed)
    found = forward(None, merged.model.config)(merged.params, inputs)
    rounding = 5e-6 if family == "t5" else 1e-6  # whose attention does not divide by √H, and so is steeper
    np.testing.assert_allclose(found, applied, rtol=0, atol=rounding * np.abs(applied).max())


@pytest.mark.parametrize("method", [BitFit(), LoRA(), AdaLoRA(), IA3(), Bottleneck(), VeRA(), Freeze()], ids=repr)
def test_the_head_of_a_model_of_images_learns(method):
    assert method.learns("classifier/kernel") and method.learns("classifier/bias")


def test_freeze_leaves_a_model_of_images_its_head():
    encoder = TransformerConfig(num_layers=1, embed_dim=8, num_heads=2, causal=False, position="none")
    config = VisionConfig(image_size=4, patch_size=2, num_labels=2, distillation_token=True, encoder=encoder)
    learns = [path for path in paths(abstract_params(make_model(config))[0]) if Freeze().learns(path)]
    assert {path.split("/")[0] for path in learns} == {"classifier", "final_norm"}


def test_freeze_means_both_stacks_and_refuses_to_freeze_nothing():
    learns = [path for path in paths(parameters(FAMILIES["t5"])) if Freeze().learns(path)]
    assert learns == ["decoder/final_norm/scale", "decoder/unembed/kernel", "encoder/final_norm/scale"]
    only = Freeze(patterns=("encoder/layers/*",))
    assert only.learns("decoder/layers/ffw/up/kernel") and not only.learns("encoder/layers/ffw/up/kernel")
    with pytest.raises(ValueError, match="method.patterns must freeze parameters of this model: blocks/. matches none"):
        adapt(make_model(LLAMA), Freeze(patterns=("blocks/*",)))
    with pytest.raises(ValueError, match="method.patterns: no parameter has the path 'layers/0/.'; all layers of a stack are"):
        adapt(make_model(LLAMA), Freeze(patterns=("embed/*", "layers/0/*")))
    with pytest.raises(ValueError, match="method.also: no parameter has the path 'final_norms/.': there are .*final_norm/"):
        adapt(make_model(LLAMA), LoRA(also=("final_norms/*",)))
    assert adapt(make_model(LLAMA), LoRA(also=("final_norm/*", "head/*")))
    headless = dataclasses.replace(FAMILIES["bert"], head=HeadConfig(kind="none"))
    with pytest.raises(ValueError, match="method.patterns must leave parameters of this model to learn: embed/.*name fewer"):
        adapt(make_model(headless), Freeze())


def test_a_list_of_targets_is_taken_and_shapes_are_those_of_each_method():
    """Shapes are kept by model; a method with a list cannot be looked up."""
    shapes = {}
    for targets in (("query",), ["query"], ("value",)):
        method = LoRA()
        object.__setattr__(method, "targets", targets)  # where no types are checked the constructor takes it
        model = adapt(make_model(LLAMA), method)
        shapes[str(targets)] = [paths(abstract_params(model)[0]) for _ in range(2)]
        abstract_params(model)[0].clear()  # a tree of the caller's own
    assert shapes["('query',)"] == shapes["['query']"] != shapes["('value',)"]
    assert all(first == again for first, again in shapes.values())


@pytest.mark.parametrize("options", [{"norm_bias": False}, {"norm_scale": False}], ids=repr)
def test_bitfit_needs_biases_in_the_layers(options):
    config = dataclasses.replace(FAMILIES["gpt"], bias=False, **options)
    with pytest.raises(ValueError, match="BitFit needs a model with biases in its layers"):
        adapt(make_model(config), BitFit())
    adapt(make_model(dataclasses.replace(FAMILIES["gpt"], bias=False)), BitFit())


HEADED = dataclasses.replace(FAMILIES["bert"], head=HeadConfig(kind="sequence", num_labels=3, pooler=True))
OF_HEADS = {
    "lora": LoRA(rank=3, targets=("head/pooler", "classifier", "query"), also=()),
    "dora": LoRA(rank=3, targets=("head/*",), dora=True, also=()),
    "adalora": AdaLoRA(init_rank=3, target_rank=2, alpha=1000.0, targets=("head/*",), also=()),
    "ia3": IA3(targets=("classifier",), feedforward=("pooler",), also=()),
    "vera": VeRA(rank=5, targets=("head/*",), also=()),
}


@pytest.mark.parametrize("name", OF_HEADS)
def test_an_adapted_head_is_in_the_loss(name):
    """Labels read afterwards are those of the model, and of the merged one; and the loss depends on what learns."""
    method, inputs = OF_HEADS[name], inputs_of(HEADED)
    model, params = adapt(make_model(HEADED), method), moved(method, fresh(method, HEADED))
    ids = jnp.ones_like(inputs["tokens"])

    def read(params, inputs):
        params = method.prepare(params)
        return label_logits(HEADED, params, model.apply({"params": params}, **inputs, unembed=False).hidden, ids)[:, 0]

    def loss(params, inputs):
        found = read(params, inputs)
        return jnp.sum(jnp.square(found)), found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, inputs)
    np.testing.assert_allclose(found, forward(method, HEADED)(params, inputs), atol=1e-5)
    np.testing.assert_allclose(found, forward(None, HEADED)(jax.jit(method.merge)(params), inputs), atol=1e-5)
    base = forward(None, HEADED)(parameters(HEADED), inputs)
    assert np.abs(found - base).max() > 1e-3
    for keys, leaf in jax.tree_util.tree_leaves_with_path(gradients["head"]):
        assert np.abs(leaf).max() > 0 or not method.learns(path_of(keys)), path_of(keys)


def test_the_length_of_a_column_is_a_constant_of_the_gradient():
    """Of an adapted head, which is merged before it is used, as in the blocks; a column of zeros gives no NaN."""
    random = np.random.default_rng(0)
    kernel, given = random.normal(size=(6, 4)).astype(np.float32), random.normal(size=(6, 4)).astype(np.float32)
    own = {"a": random.normal(size=(6, 2)), "b": random.normal(size=(2, 4)), "scale": 2.0, "magnitude": random.normal(size=4)}
    own = {name: jnp.asarray(value, jnp.float32) for name, value in own.items()}
    found = jax.grad(lambda a: jnp.sum(given * merge_module({"kernel": jnp.asarray(kernel)}, own | {"a": a}, 0)["kernel"]))(
        own["a"]
    )
    factor = np.asarray(own["magnitude"]) / np.linalg.norm(kernel + 2 * np.asarray(own["a"]) @ np.asarray(own["b"]), axis=0)
    np.testing.assert_allclose(found, 2 * (given * factor) @ np.asarray(own["b"]).T, rtol=1e-4)
    none = {name: jnp.zeros_like(value) if name != "scale" else value for name, value in own.items()}
    assert np.isfinite(merge_module({"kernel": jnp.zeros((6, 4))}, none, 0)["kernel"]).all()


def test_lora_plus_moves_b_faster():
    """By its ratio; not of an embedding, whose A is 0 at first."""
    config = OptimizerConfig(name="sgd", learning_rate=0.1, momentum=0.0, clip_norm=None, weight_decay=0.0)
    own = {"lora": {"a": jnp.ones(2), "b": jnp.ones(2)}}
    tree, moves = {"embed": own, "layers": {"query": own}, "head": {"bias": jnp.ones(2)}}, []
    for method in (LoRA(lora_plus_ratio=4.0), LoRA()):
        rule, _ = make_optimizer(config, 10, wrapped(method, 10))
        moves.append(rule.update(tree, rule.init(tree), tree)[0])
    ratios = jax.tree.map(lambda fast, plain: float(fast[0] / plain[0]), *moves)
    plain = {"lora": {"a": 1.0, "b": 1.0}}
    assert ratios == {"embed": plain, "layers": {"query": {"lora": {"a": 1.0, "b": 4.0}}}, "head": {"bias": 1.0}}


def described(name: str):
    """A method that is trained, and the model."""
    return {**METHODS, **SOFT}[name], BIASED if name == "bitfit" else LLAMA


TRAINED = (
    "bitfit",
    "lora by layer",
    "dora dropout",
    "embeddings",
    "adalora",
    "ia3",
    "houlsby",
    "vera",
    "prefix network",
    "prompt",
)
"""Those that always are."""


@functools.cache
def trained(name: str):
    return train(*described(name))


@pytest.mark.parametrize("name", some(OTHERWISE, TRAINED))
def test_training_moves_only_what_learns(name):
    method, _ = described(name)
    losses, before, after = trained(name)
    assert np.isfinite(losses).all()
    frozen = zip(jax.tree.leaves(before.frozen), jax.tree.leaves(after.frozen), strict=True)
    assert all(np.array_equal(old, new) for old, new in frozen)
    for (keys, old), new in zip(jax.tree_util.tree_leaves_with_path(before.params), jax.tree.leaves(after.params), strict=True):
        assert not np.array_equal(old, new), path_of(keys)
        assert method.learns(path_of(keys))
    sizes = {leaf.shape for leaf in jax.tree.leaves(after.params)} | {()}
    assert {leaf.shape for leaf in jax.tree.leaves(after.opt_state)} <= sizes
    names = {path_of(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(after.opt_state)}
    missing = [path for path in paths(before.frozen) if any(found.endswith(path) for found in names)]
    assert not missing


WAYS = {
    "explicit": dict(sizes=MeshConfig(data=2, fsdp=2, tensor=2, explicit=True)),
    "auto": dict(sizes=MeshConfig(data=1, fsdp=4, tensor=2)),
    "stages": dict(sizes=MeshConfig(data=2, stage=2, fsdp=2)),
    "pieces": dict(layer_loop="unroll", remat="block", accumulate=2),
}
"""Meshes; and layers one by one, computed again for the gradient, of half the batch at a time."""
WAYS_OF_ALL = [f"{name}-{way}" for name in OTHERWISE for way in WAYS if "dropout" not in name]
"""Dropout draws from the key of a piece of the batch, so it is not among them."""


@pytest.mark.parametrize("case", some(WAYS_OF_ALL, [f"{name}-{way}" for name, way in OTHERWISE.items() if name in TRAINED]))
def test_any_way_to_compute_it_gives_the_same_losses(case):
    name, _, way = case.rpartition("-")
    method, config = described(name)
    options = dict(WAYS[way])
    layers = {field: options.pop(field) for field in ("layer_loop", "remat") if field in options}
    losses = train(method, dataclasses.replace(config, **layers), **options)[0]
    np.testing.assert_allclose(losses, trained(name)[0], atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", some([name for name in OTHERWISE if name not in SOFT], ("dora", "embeddings", "adalora")))
def test_decoding_with_the_cache_equals_the_full_forward(name):
    method, config = described(name)
    params, inputs = moved(method, fresh(method, config)), inputs_of(config)
    model = adapt(make_model(config), method)
    call = jax.jit(lambda params, tokens, cache: model.apply({"params": params}, tokens, cache=cache)._replace(captured={}))
    cache, pieces = init_cache(config, 4, T), []
    for start in range(0, T, T // 2):
        out = call(params, inputs["tokens"][:, start : start + T // 2], cache)
        cache = out.cache
        pieces.append(out.logits)
    np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), forward(method, config)(params, inputs), atol=2e-5)
