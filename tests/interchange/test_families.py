"""Every published class against transformers: the battery of `battery.py`."""

import jax
import numpy as np
import pytest

from jaxllm.inference import SamplingConfig, beam_search, stream_tokens
from jaxllm.interchange import open_published, write_folder
from jaxllm.interchange.export import published_config, published_tensors
from jaxllm.interchange.safetensors_folder import open_tensors
from tests.interchange import encoder_battery, encoder_decoder_battery
from tests.interchange.battery import ROWS, compute, load, load_balance, write_published

TRANSLATORS = encoder_decoder_battery.ROWS
COMPUTE = (
    dict.fromkeys(ROWS, compute)
    | dict.fromkeys(encoder_battery.ROWS, encoder_battery.compute)
    | dict.fromkeys(TRANSLATORS, encoder_decoder_battery.compute)
)


@pytest.fixture(scope="module", params=COMPUTE)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def loaded(name, tmp_path_factory):
    return COMPUTE[name](name, tmp_path_factory.mktemp("published"))


def close(got, want, where):
    """Equal within 1e-4 where `where` is True: padded places are nobody's business."""
    np.testing.assert_allclose(np.asarray(got)[where], want[where], atol=1e-4, rtol=0)


def test_logits(loaded):
    want = loaded.golden["logits"]
    of_tokens = want.ndim == 3 and loaded.output.encoder is None
    where = loaded.golden["mask"] == 1 if of_tokens else np.ones(want.shape, bool)
    close(loaded.output.logits, want, where)


def test_every_hidden_state(loaded):
    """The last one that transformers hands out is normalized, but for images. Of two stacks this is the encoder."""
    output = loaded.output.encoder or loaded.output
    ours = output.captured["hidden"] if "images" in loaded.golden else hidden_states(output)
    where = np.broadcast_to(loaded.golden["mask"] == 1, ours.shape[:3])
    close(ours, loaded.golden["hidden"], where)


def hidden_states(output):
    return np.concatenate([output.captured["hidden"][:-1], output.hidden[None]])


def test_attention_maps(loaded):
    want = loaded.golden["attention"]
    where = np.broadcast_to((loaded.golden["mask"] == 1)[None, :, None], want.shape[:4])
    close((loaded.output.encoder or loaded.output).captured["attention"], want, where)


@pytest.mark.parametrize("name", TRANSLATORS, indirect=True, scope="module")
def test_hidden_states_and_attention_maps_of_the_decoder(loaded):
    captured, golden = loaded.output.captured, loaded.golden
    close(hidden_states(loaded.output), golden["decoder_hidden"], ...)
    close(captured["attention"], golden["decoder_attention"], ...)
    close(captured["cross_attention"], golden["cross_attention"], ...)


def test_loss_and_every_gradient(loaded):
    np.testing.assert_allclose(loaded.loss, loaded.golden["loss"], atol=1e-4, rtol=0)
    wanted = {key.removeprefix("gradient/"): g for key, g in loaded.golden.items() if key.startswith("gradient/")}
    got = {t.name: t.make() for t in published_tensors(loaded.published.family, loaded.published.config, loaded.gradient)}
    assert got.keys() - {"final_logits_bias"} == wanted.keys()  # transformers does not train that one
    for key, want in wanted.items():
        np.testing.assert_allclose(got[key], want, atol=1e-4, rtol=0, err_msg=key)
        if np.abs(want).max() > 1e-6:  # of a key's bias it is rounding only: all logits of a query move alike
            cosine = np.sum(got[key] * want) / (np.linalg.norm(got[key]) * np.linalg.norm(want))
            assert cosine > 0.99999, (key, cosine)


@pytest.mark.parametrize("name", ["MixtralForCausalLM", "Qwen3MoeForCausalLM"], indirect=True, scope="module")
def test_load_balance_of_experts(loaded):
    got = load_balance(loaded.output, loaded.published.config, jax.numpy.asarray(loaded.golden["mask"]))
    np.testing.assert_allclose(got, loaded.golden["load_balance"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ROWS, indirect=True, scope="module")
def test_greedy_and_beam_ids(loaded):
    prompts = [
        [int(token) for token, real in zip(*row, strict=True) if real]
        for row in zip(loaded.golden["prompt"], loaded.golden["prompt_mask"], strict=True)
    ]
    count = loaded.golden["greedy"].shape[1]
    assert written(count, model=loaded.model, params=loaded.params, prompts=prompts) == [
        loaded.golden[way].tolist() for way in ("greedy", "beam")
    ]


@pytest.mark.parametrize("name", TRANSLATORS, indirect=True, scope="module")
def test_greedy_and_beam_ids_from_a_source(loaded, name, tmp_path):
    golden, given = loaded.golden, encoder_decoder_battery.search_inputs(name, tmp_path)
    eos = int(golden["eos"])
    got = written(encoder_decoder_battery.NEW_TOKENS, (eos,), **given)
    assert [[until(ids, eos) for ids in rows] for rows in got] == [
        [until(ids, eos) for ids in golden[way].tolist()] for way in ("greedy", "beam")
    ]


def written(count, eos_ids=(), **given):
    """What greedy search and beam search write."""
    greedy = list(stream_tokens(sampling=SamplingConfig(max_tokens=count, temperature=0.0), **given))
    beam = beam_search(sampling=SamplingConfig(max_tokens=count, num_beams=4), eos_ids=eos_ids, **given)
    return [np.concatenate(greedy).T.tolist(), beam]


def until(ids, eos):
    """A text up to its end token."""
    return ids[: ids.index(eos) + 1] if eos in ids else ids


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_out_again_is_equal_to_the_byte(name, dtype, tmp_path):
    kind = jax.numpy.dtype(dtype)
    wanted = write_published(tmp_path / "in", name, kind)
    published, _, params = load(tmp_path / "in", dtype=dtype)
    write_folder(tmp_path / "out", published.family, published.config, params, max_shard_bytes=20_000)
    back = open_tensors(tmp_path / "out")
    assert set(back.names) == set(wanted)
    for key, want in wanted.items():
        got = back.read(key, tuple(slice(0, size) for size in back.shape(key)))
        assert got.dtype == kind and got.tobytes() == want.tobytes(), key
    again = open_published(tmp_path / "out").config
    assert published_config(published.family, again) == published_config(published.family, published.config)
