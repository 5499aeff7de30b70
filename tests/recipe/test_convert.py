"""Published folders in and out again: the types of their tensors, and what they say of generation."""

import json
import os
import subprocess
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

import jaxllm
from jaxllm.inference import beam_search, encode_sources, stream_tokens
from jaxllm.interchange import open_published
from jaxllm.interchange.safetensors_folder import open_tensors
from jaxllm.recipe import convert
from tests.interchange.battery import write_published

ORACLE = os.environ.get("JAXLLM_ORACLE_PYTHON")
BF16, F16, F32 = np.dtype(ml_dtypes.bfloat16), np.dtype(np.float16), np.dtype(np.float32)


def stored(folder):
    source = open_tensors(folder)
    return {name: source.read(name, tuple(slice(0, n) for n in source.shape(name))) for name in source.names}


def converted(folder, **options):
    with pytest.warns(UserWarning, match="the model has no tokenizer"):
        return convert(folder / "in", folder / "out", **options)


@pytest.mark.parametrize("name", ["GPT2LMHeadModel", "Qwen3MoeForCausalLM", "BartForConditionalGeneration"])
@pytest.mark.parametrize("kinds", [(F16, F16), (BF16, BF16), (BF16, F32)], ids=["float16", "bfloat16", "mixed"])
def test_each_tensor_keeps_its_type_to_the_byte(name, kinds, tmp_path):
    """Mixed: norms and biases in float32, matrices in bfloat16."""
    wanted = {key: value.astype(kinds[value.ndim == 1]) for key, value in write_published(tmp_path / "in", name).items()}
    save_file(wanted, tmp_path / "in" / "model.safetensors")
    got = stored(converted(tmp_path))
    assert got.keys() == wanted.keys()
    for key, want in wanted.items():
        assert got[key].dtype == want.dtype and got[key].tobytes() == want.tobytes(), key
    widest = max(kinds, key=lambda kind: kind.itemsize)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == str(widest)


def test_names_without_their_prefix_and_copies_keep_theirs(tmp_path):
    wanted = write_published(tmp_path / "in", "GPT2LMHeadModel", BF16)
    bare = {key.removeprefix("transformer."): value for key, value in wanted.items()}
    save_file(bare | {"lm_head.weight": bare["wte.weight"]}, tmp_path / "in" / "model.safetensors")
    got = stored(converted(tmp_path))
    assert {key: value.tobytes() for key, value in got.items()} == {key: value.tobytes() for key, value in wanted.items()}


def test_the_type_asked_for_wins_and_float64_is_stored_as_it_was_computed(tmp_path):
    tensors = write_published(tmp_path / "in", "GPT2LMHeadModel", F16)
    assert {value.dtype for value in stored(converted(tmp_path, dtype="float32")).values()} == {F32}
    save_file({key: value.astype(np.float64) for key, value in tensors.items()}, tmp_path / "in" / "model.safetensors")
    (tmp_path / "out").rename(tmp_path / "first")
    assert {value.dtype for value in stored(converted(tmp_path)).values()} == {F32}


T5, BART, MARIAN = "T5ForConditionalGeneration", "BartForConditionalGeneration", "MarianMTModel"
SAID = {
    T5: {"decoder_start_token_id": 0, "eos_token_id": 1, "pad_token_id": 0},
    BART: {
        "decoder_start_token_id": 2, "bos_token_id": 0, "eos_token_id": [2, 44], "pad_token_id": 1, "forced_bos_token_id": 0,
        "forced_eos_token_id": 2, "begin_suppress_tokens": [38, 2], "suppress_tokens": [46, 44],
    },
    MARIAN: {
        "decoder_start_token_id": 60, "eos_token_id": [0, 7], "pad_token_id": 60, "forced_eos_token_id": 7,
        "bad_words_ids": [[60]],
    },
}  # fmt: skip
"""generation_config.json of each source; its end tokens are never written by themselves here, or only at times."""


def translator(folder, name):
    """A published folder with that generation_config.json, and fields in config.json that it overrules."""
    write_published(folder, name)
    fields = json.loads((folder / "config.json").read_text()) | {"pad_token_id": SAID[name]["pad_token_id"]}
    (folder / "config.json").write_text(json.dumps(fields | {"forced_bos_token_id": 9, "decoder_start_token_id": 5}))
    (folder / "generation_config.json").write_text(json.dumps(SAID[name] | {"num_beams": 1, "transformers_version": "5.0"}))


@pytest.mark.parametrize("name", SAID)
def test_what_is_said_of_generation_goes_out_as_it_came_in(name, tmp_path):
    translator(tmp_path / "in", name)
    converted(tmp_path)
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text()) == SAID[name]
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["decoder_start_token_id"] == SAID[name]["decoder_start_token_id"]
    assert fields["pad_token_id"] == SAID[name]["pad_token_id"]


def test_config_json_counts_where_there_is_no_other_file(tmp_path):
    """The forced end that BART's config.json has always had, and the forced start under its first name."""
    translator(tmp_path / "in", BART)
    (tmp_path / "in" / "generation_config.json").unlink()
    old = {"forced_eos_token_id": 2, "force_bos_token_to_be_generated": True, "bos_token_id": 3, "eos_token_id": 2}
    old["forced_bos_token_id"] = None
    fields = json.loads((tmp_path / "in" / "config.json").read_text()) | old
    (tmp_path / "in" / "config.json").write_text(json.dumps(fields))
    converted(tmp_path)
    said = {"decoder_start_token_id": 5, "bos_token_id": 3, "eos_token_id": 2, "pad_token_id": 1}
    told = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert told == said | {"forced_bos_token_id": 3, "forced_eos_token_id": 2}


def test_what_generation_says_does_not_move_positions(tmp_path):
    """RoBERTa's positions begin behind its padding token, whatever generation pads with."""
    write_published(tmp_path / "in", "RobertaForMaskedLM")
    (tmp_path / "in" / "generation_config.json").write_text(json.dumps({"pad_token_id": 0}))
    assert json.loads((converted(tmp_path) / "config.json").read_text())["pad_token_id"] == 1


def test_bad_words_of_several_tokens_are_told(tmp_path):
    translator(tmp_path / "in", T5)
    words = SAID[T5] | {"bad_words_ids": [[5], [1], [3, 4]]}
    (tmp_path / "in" / "generation_config.json").write_text(json.dumps(words))
    with pytest.warns(UserWarning, match=r"bad_words_ids of several tokens are not applied: \(3, 4\)"):
        assert open_published(tmp_path / "in").generation.suppress == (5,)  # an end token is no bad word to transformers either


@pytest.mark.slow
@pytest.mark.skipif(ORACLE is None, reason="JAXLLM_ORACLE_PYTHON names no Python with torch and transformers")
@pytest.mark.parametrize("name", SAID)
def test_transformers_generates_from_it_what_we_do(name, tmp_path):
    """With nothing but the length and the number of beams: all else is in the exported files."""
    translator(tmp_path / "in", name)
    converted(tmp_path)
    script = Path(__file__).parents[2] / "scripts" / "oracle" / "load_exported.py"
    assert ORACLE is not None
    subprocess.run([ORACLE, script, tmp_path / "out", tmp_path / "oracle.npz"], check=True, capture_output=True)
    with pytest.warns(UserWarning, match="the model has no tokenizer"):
        m = jaxllm.load(tmp_path / "out")
    with np.load(tmp_path / "oracle.npz") as oracle:
        logits = m(oracle["tokens"], decoder_tokens=oracle["decoder_tokens"]).logits
        np.testing.assert_allclose(logits, oracle["logits"], atol=1e-4, rtol=0)
        ends, starts = m.generation.eos_ids, [[m.config.start_id]] * 2
        given = {"prompts": starts, "memory": encode_sources(m.model, m.params, oracle["tokens"].tolist())}
        count = oracle["greedy"].shape[1]
        greedy = stream_tokens(m.model, m.params, sampling=m.sampling(max_tokens=count, temperature=0.0), **given)
        beam = beam_search(m.model, m.params, sampling=m.sampling(max_tokens=count, num_beams=4), eos_ids=ends, **given)
        for ids, want in ((np.concatenate(list(greedy)).T.tolist(), "greedy"), (beam, "beam")):
            assert [until(row, ends) for row in ids] == [until(row, ends) for row in oracle[want].tolist()]


def until(ids, ends):
    places = [place for place, token in enumerate(ids) if token in ends]
    return ids[: places[0] + 1] if places else ids
