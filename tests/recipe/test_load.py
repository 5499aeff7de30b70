"""Any model from anywhere: called, asked to write, embedded, converted, and back."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxllm
from jaxllm.cli import run
from jaxllm.data.config import TokenizerConfig
from jaxllm.data.tokenizer import CharacterTokenizer, train_tokenizer
from jaxllm.inference import SamplingConfig
from jaxllm.interchange import GenerationDefaults, SentenceConfig, find_family, write_folder
from jaxllm.models import HeadConfig, TransformerConfig, VisionConfig, init_params, make_model, prune_heads
from jaxllm.recipe import Loaded, convert, fit
from jaxllm.recipe.model_folder import write_model_folder
from jaxllm.sharding import MeshConfig
from tests.recipe.tiny import config

TEXT = ["the cat sat on the mat and the dog sat on the log"] * 3
TOKENS = np.asarray([[5, 3, 8, 1, 0], [7, 2, 4, 6, 9]])


def llama(folder, **changes):
    """A published Llama with random weights and a real tokenizer."""
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=300), TEXT)
    fields = dict(vocab_size=tokenizer.vocab_size, context_len=32, num_layers=2, embed_dim=32, num_heads=4, num_kv_heads=2)
    style = dict(norm="rms_norm", position="rotary", activation="swiglu", bias=False, ffw_dim=48, init_std=0.3)
    model = make_model(TransformerConfig(**{**fields, **style, **changes}))
    params = init_params(model, jax.random.key(0))
    write_folder(folder, find_family("LlamaForCausalLM"), model.config, params, tokenizer)
    return model, params


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return fit(config(run_dir=str(tmp_path_factory.mktemp("runs") / "tiny"), steps=6)).run_dir


def test_a_published_folder(tmp_path):
    model, params = llama(tmp_path / "llama")
    m = jaxllm.load(tmp_path / "llama")
    want = model.apply({"params": params}, jnp.asarray(TOKENS))
    np.testing.assert_allclose(m(TOKENS).logits, want.logits, atol=1e-5)
    np.testing.assert_allclose(m(TOKENS.tolist()).hidden, want.hidden, atol=1e-5)
    assert m(TOKENS, capture=("attention",)).captured["attention"].shape == (2, 2, 4, 5, 5)
    assert m.architecture == "LlamaForCausalLM" and m.tokenizer.encode("the cat")
    assert len(m.generate(["the", "a dog"], max_tokens=3, temperature=0.0)) == 2
    assert m.generate("the", max_tokens=3, num_beams=2) == m.generate(["the"], max_tokens=3, num_beams=2)
    with pytest.raises(ValueError, match="a chat needs a tokenizer with a chat template"):
        m.generate([{"role": "user", "content": "hello"}])


def test_padding_changes_nothing_on_the_right_and_on_the_left_with_positions(tmp_path):
    llama(tmp_path / "llama")
    m = jaxllm.load(tmp_path / "llama")
    alone = m(TOKENS).logits
    right = m(np.pad(TOKENS, [(0, 0), (0, 3)]), np.pad(np.ones_like(TOKENS), [(0, 0), (0, 3)])).logits
    left = m(np.pad(TOKENS, [(0, 0), (3, 0)]), np.pad(np.ones_like(TOKENS), [(0, 0), (3, 0)])).logits
    np.testing.assert_allclose(right[:, :5], alone, atol=1e-5)
    np.testing.assert_allclose(left[:, 3:], alone, atol=1e-5)


def test_spread_over_a_mesh_and_in_another_type(tmp_path):
    llama(tmp_path / "llama")
    whole = jaxllm.load(tmp_path / "llama")
    spread = jaxllm.load(tmp_path / "llama", mesh=MeshConfig(data=1, fsdp=4, tensor=2))
    kernel = spread.params["layers"]["ffw"]["up"]["kernel"]
    assert len(kernel.sharding.device_set) == 8 and kernel.addressable_shards[0].data.size == kernel.size // 8
    assert spread.generate("the", max_tokens=4, seed=3) == whole.generate("the", max_tokens=4, seed=3)
    np.testing.assert_allclose(spread(TOKENS).logits, whole(TOKENS).logits, atol=1e-5)
    half = jaxllm.load(tmp_path / "llama", dtype="bfloat16")
    assert half.params["embed"]["table"].dtype == "bfloat16" and half.config.compute_dtype == "bfloat16"
    assert np.abs(np.asarray(half(TOKENS).logits) - np.asarray(whole(TOKENS).logits)).max() < 0.5


def test_to_our_layout_and_back_is_byte_equal(tmp_path, capsys):
    llama(tmp_path / "llama")
    assert run(["convert", str(tmp_path / "llama"), str(tmp_path / "ours"), "--to", "jaxllm"]) == 0
    assert "MB" in capsys.readouterr().out
    assert run(["convert", str(tmp_path / "ours"), str(tmp_path / "back")]) == 0
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("llama", "back"))
    assert first == second
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("llama", "back")]
    assert configs[0] == configs[1]
    ours = jaxllm.load(tmp_path / "ours")
    assert ours.generate("the", max_tokens=4, seed=3) == jaxllm.load(tmp_path / "llama").generate("the", max_tokens=4, seed=3)
    assert run(["convert", str(tmp_path / "llama"), str(tmp_path / "ours")]) == 2
    assert "must be a new folder" in capsys.readouterr().err


def test_a_run_becomes_a_published_folder(trained, tmp_path, capsys):
    """The class is found by what the config says: this one is a GPT-2."""
    assert run(["convert", str(trained), str(tmp_path / "gpt2")]) == 0
    published, own = jaxllm.load(tmp_path / "gpt2"), jaxllm.load(trained)
    assert published.architecture == "GPT2LMHeadModel" and own.step == 6
    np.testing.assert_allclose(published(TOKENS).logits, own(TOKENS).logits, atol=1e-5)
    assert isinstance(published.tokenizer, CharacterTokenizer)
    assert run(["convert", str(trained), str(tmp_path / "llama"), "--as", "LlamaForCausalLM"]) == 2
    assert "norm" in capsys.readouterr().err and not (tmp_path / "llama").exists()


def test_a_config_without_a_published_class(tmp_path):
    model = make_model(TransformerConfig(vocab_size=20, num_layers=1, embed_dim=8, num_heads=2, position="alibi"))

    params = init_params(model, jax.random.key(0))
    write_model_folder(tmp_path / "ours", Loaded(model=model, params=params, tokenizer=None, source=tmp_path))
    with pytest.raises(ValueError, match="no published architecture says all that the TransformerConfig"):
        convert(tmp_path / "ours", tmp_path / "hf")


def test_tokens_that_end_a_text_go_along(tmp_path):

    llama(tmp_path / "llama")
    said = GenerationDefaults(
        eos_ids=(5, 7), bos_id=0, pad_id=3, suppress=(2,), begin_suppress=(4, 6), forced_bos=9, forced_eos=(7,)
    )
    m = dataclasses.replace(jaxllm.load(tmp_path / "llama"), generation=said)
    write_model_folder(tmp_path / "ours", m)
    convert(tmp_path / "ours", tmp_path / "back")
    back = jaxllm.load(tmp_path / "back")
    assert back.generation == said == jaxllm.load(tmp_path / "ours").generation
    sampling = back.sampling(max_tokens=3, suppress=(1, 2), begin_suppress=(5,), forced_bos=None)
    assert (sampling.suppress, sampling.begin_suppress) == ((2, 1), (4, 6, 5))
    assert (sampling.forced_bos, sampling.forced_eos, back.sampling().forced_bos) == (None, (7,), 9)
    off = dict.fromkeys(("suppress", "begin_suppress", "forced_bos", "forced_eos"))
    assert back.sampling(**off) == SamplingConfig()
    for name in off:
        rest = {key: getattr(said, key) for key in off if key != name}
        assert back.sampling(**{name: None}) == SamplingConfig(**rest), name


def test_generate_from_a_published_folder(tmp_path, capsys):
    llama(tmp_path / "llama")
    words = ["generate", str(tmp_path / "llama"), "--prompt", "the cat", "--max-tokens", "4", "--num-beams", "2"]
    assert run(words) == 0
    assert capsys.readouterr().out.startswith("the cat")


def test_an_encoder_gives_hidden_states_and_vectors(tmp_path):
    tokenizer = train_tokenizer(TokenizerConfig(kind="wordpiece", vocab_size=300), TEXT)
    head = HeadConfig(kind="none", pooler=True)
    fields = dict(vocab_size=tokenizer.vocab_size, context_len=32, num_layers=2, embed_dim=32, num_heads=4, causal=False)
    style = dict(norm_placement="post", embed_norm=True, token_types=2, activation="gelu", norm_epsilon=1e-12)
    model = make_model(TransformerConfig(**fields, **style, head=head))
    params = init_params(model, jax.random.key(0))
    write_folder(tmp_path / "bert", find_family("BertModel"), model.config, params, tokenizer)
    m = jaxllm.load(tmp_path / "bert")
    output = m(TOKENS)
    assert output.logits is None and output.hidden.shape == (2, 5, 32) and output.pooled.shape == (2, 32)
    vectors = m.embed(["the cat", "the dog sat"])
    np.testing.assert_allclose((vectors**2).sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(m.embed("the cat")[0], vectors[0], atol=1e-5)
    with pytest.raises(ValueError, match="generate needs a model that writes"):
        m.generate("the cat")

    first = dataclasses.replace(m, sentence=SentenceConfig(pooling="first", normalize=False, max_len=8))
    write_model_folder(tmp_path / "ours", first)
    convert(tmp_path / "ours", tmp_path / "hf")
    for folder in ("ours", "hf"):
        back = jaxllm.load(tmp_path / folder)
        assert back.sentence == first.sentence
        np.testing.assert_allclose(back.embed("the cat"), first.embed("the cat"), atol=1e-5)
    assert np.abs(first.embed("the cat") - vectors[:1]).max() > 0.01


def test_images_in_either_layout(tmp_path):

    encoder = TransformerConfig(num_layers=1, embed_dim=16, num_heads=2, causal=False, position="none")
    model = make_model(VisionConfig(image_size=8, patch_size=4, num_labels=3, encoder=encoder))
    m = Loaded(model=model, params=init_params(model, jax.random.key(0)), tokenizer=None, source=tmp_path)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(m(images=images).logits, m(images=images.transpose(0, 3, 1, 2)).logits)
    with pytest.raises(ValueError, match="called with images="):
        m(TOKENS)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "config.json"),
        (lambda f: (f / "config.json").write_text('{"architectures": ["LamaForCausalLM"]}'), "nearest first: LlamaForCausalLM"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
        (lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:-100]), "model.safetensors"),
    ],
    ids=["no config", "unknown architecture", "pickle", "truncated"],
)
def test_bad_folders_are_one_line_and_exit_code_2(tmp_path, capsys, break_it, message):
    folder = tmp_path / "llama"
    llama(folder)
    break_it(folder)
    assert run(["generate", str(folder), "--prompt", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1


def test_a_name_that_is_nowhere(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert run(["generate", "somebody/no-such-model", "--prompt", "x"]) == 2
    assert "somebody/no-such-model" in capsys.readouterr().err


def test_ids_and_rows_that_no_table_has_are_refused(tmp_path):
    model = make_model(TransformerConfig(vocab_size=20, num_layers=1, embed_dim=16, num_heads=4, context_len=6))
    m = Loaded(model=model, params=init_params(model, jax.random.key(0)), tokenizer=None, source=tmp_path)
    with pytest.raises(ValueError, match=r"token ids must be in 0..19: got 1..20"):
        m([[1, 20]])
    with pytest.raises(ValueError, match="at most 6 tokens, one for each position: got 7"):
        m([[1] * 7])


def test_another_kind_of_class_is_refused_by_name(trained, tmp_path, capsys):
    assert run(["convert", str(trained), str(tmp_path / "t5"), "--as", "T5ForConditionalGeneration"]) == 2
    assert "it is of another kind than TransformerConfig" in capsys.readouterr().err
    assert run(["convert", str(trained), str(tmp_path / "t5"), "--as", "T5ForGeneration"]) == 2
    assert "got it from the command" in capsys.readouterr().err


def test_an_interrupted_conversion_leaves_nothing(tmp_path, monkeypatch):
    llama(tmp_path / "llama")
    m = jaxllm.load(tmp_path / "llama")
    monkeypatch.setattr(type(m.tokenizer), "save", lambda self, folder: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        write_model_folder(tmp_path / "ours", m)
    assert [path.name for path in tmp_path.iterdir()] == ["llama"]


def test_step_is_for_runs(tmp_path):
    llama(tmp_path / "llama")
    with pytest.raises(ValueError, match="step is for the folder of a run"):
        jaxllm.load(tmp_path / "llama", step=3)


def test_a_missing_tokenizer_is_told(tmp_path):
    llama(tmp_path / "llama")
    for file in (tmp_path / "llama").glob("*token*"):
        file.unlink()
    with pytest.warns(UserWarning, match="the model has no tokenizer"):
        m = jaxllm.load(tmp_path / "llama")
    assert m(TOKENS).logits.shape[-1] == m.config.vocab_size
    with pytest.raises(ValueError, match="with a tokenizer"):
        m.generate("the")


def test_our_layout_keeps_nothing_of_the_device(tmp_path):
    model, params = llama(tmp_path / "llama", layer_loop="unroll")
    m = jaxllm.load(tmp_path / "llama")

    write_model_folder(tmp_path / "ours", m)
    saved = json.loads((tmp_path / "ours" / "model.json").read_text())
    assert saved["config"]["layer_loop"] is None and saved["config"]["norm_barrier"] is None
    assert dataclasses.replace(jaxllm.load(tmp_path / "ours").config) == m.config


def test_a_pruned_model_goes_to_disk_and_back(tmp_path):
    """Layers differ in their heads, so each is a tree of its own."""

    whole = make_model(TransformerConfig(vocab_size=20, num_layers=2, embed_dim=16, num_heads=4, context_len=16))
    config, params = prune_heads(whole.config, init_params(whole, jax.random.key(0)), {0: [1, 3], 1: [0]})
    m = Loaded(model=make_model(config), params=params, tokenizer=None, source=tmp_path)
    write_model_folder(tmp_path / "pruned", m)
    back = jaxllm.load(tmp_path / "pruned")
    assert back.config.pruned_heads == ((0, 1), (0, 3), (1, 0))
    np.testing.assert_allclose(back(TOKENS).logits, m(TOKENS).logits, atol=1e-6)
