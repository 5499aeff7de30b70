"""Tokens that are forced or suppressed, as generation_config.json has them, against transformers' `generate`."""

import json

import numpy as np
import pytest

from jaxllm.inference import SamplingConfig, beam_search, stream_tokens
from jaxllm.interchange.generation import generation_defaults
from tests.interchange.battery import GOLDEN, load, write_published
from tests.interchange.encoder_decoder_battery import search_inputs

with np.load(GOLDEN / "forced_tokens.npz") as file:
    ARRAYS = {key: file[key] for key in file}
CASES = {key.removesuffix("/case"): json.loads(str(value)) for key, value in ARRAYS.items() if key.endswith("/case")}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    bart, gpt2 = (tmp_path_factory.mktemp(name) for name in ("bart", "gpt2"))
    write_published(gpt2, "GPT2LMHeadModel")
    _, model, params = load(gpt2)
    return {
        "BartForConditionalGeneration": search_inputs("BartForConditionalGeneration", bart),
        "GPT2LMHeadModel": {"model": model, "params": params},
    }


def sampling(case, **more):
    defaults = generation_defaults(CASES[case]["options"])
    fields = {name: getattr(defaults, name) for name in ("suppress", "begin_suppress", "forced_bos", "forced_eos")}
    return SamplingConfig(max_tokens=ARRAYS[f"{case}/greedy"].shape[1], **fields, **more), defaults.eos_ids


def given(models, case):
    prompt = {"prompts": ARRAYS[f"{case}/prompt"].tolist()} if f"{case}/prompt" in ARRAYS else {}
    return models[CASES[case]["architecture"]] | prompt


def until(ids, ends):
    """A text up to its end."""
    places = [place for place, token in enumerate(ids) if token in ends]
    return ids[: places[0] + 1] if places else ids


def drawn(models, case, **options):
    config, ends = sampling(case, **options)
    tokens = np.concatenate(list(stream_tokens(sampling=config, **given(models, case)))).T.tolist()
    return [until(ids, ends) for ids in tokens]


@pytest.mark.parametrize("case", CASES)
def test_greedy_ids(models, case):
    config, ends = sampling(case)
    assert drawn(models, case, temperature=0.0) == [until(ids, ends) for ids in ARRAYS[f"{case}/greedy"].tolist()]


@pytest.mark.parametrize("case", CASES)
def test_beam_ids(models, case):
    config, ends = sampling(case, num_beams=4)
    found = beam_search(sampling=config, eos_ids=ends, **given(models, case))
    assert found == [until(ids, ends) for ids in ARRAYS[f"{case}/beam"].tolist()]


@pytest.mark.parametrize("case", CASES)
def test_draws_keep_the_same_places(models, case):
    """At a high temperature every token comes up, but where one is forced or may not be."""
    options = CASES[case]["options"]
    behind_a_forced_one = "forced_bos_token_id" in options and case != "gpt2, several tokens"
    for seed in range(4):
        for ids in drawn(models, case, temperature=100.0, top_p=0.99, seed=seed):
            if behind_a_forced_one:
                assert ids[0] == options["forced_bos_token_id"]
            assert ids[behind_a_forced_one : behind_a_forced_one + 1] != options.get("begin_suppress_tokens", [])[:1]
            assert not set(ids) & set(options.get("suppress_tokens", []))
            if "forced_eos_token_id" in options and len(ids) == 6:
                assert ids[-1] in np.ravel(options["forced_eos_token_id"])


def test_a_prompt_of_one_token_is_forced_beside_a_longer_one(models):
    """What a row writes does not depend on the rows beside it."""
    prompts = [ARRAYS[f"gpt2, {length}/prompt"][0].tolist() for length in ("one token", "several tokens")]
    config = SamplingConfig(max_tokens=6, temperature=0.0, forced_bos=33, forced_eos=(7,))
    model = models["GPT2LMHeadModel"]
    rows = np.concatenate(list(stream_tokens(prompts=prompts, sampling=config, **model))).T.tolist()
    assert (rows[0][0], rows[1][0] == 33) == (33, False) and rows[0][-1] == rows[1][-1] == 7
    assert rows == [
        np.concatenate(list(stream_tokens(prompts=[p], sampling=config, **model))).ravel().tolist() for p in prompts
    ]


def test_what_cannot_be_written_cannot_be_forced(models):
    for field, value in (("forced_bos", 61), ("forced_eos", (2, 61))):
        config = SamplingConfig(max_tokens=3, **{field: value})
        with pytest.raises(ValueError, match=f"{field} must be a token that can be written, below 61: got 61"):
            list(stream_tokens(prompts=[[1]], sampling=config, **models["GPT2LMHeadModel"]))
        with pytest.raises(ValueError, match=f"{field} must hold token ids of at least 0: got -1|forced_bos must be"):
            SamplingConfig(**{field: -1 if field == "forced_bos" else (-1,)})


def test_the_first_files_of_bart_force_the_beginning_unless_they_say_with_what():
    old = {"force_bos_token_to_be_generated": True, "bos_token_id": 0}
    assert generation_defaults(old).forced_bos == 0
    assert generation_defaults(old | {"forced_bos_token_id": 7}).forced_bos == 7
