"""Tokens that are forced or suppressed, as generation_config.json has them, against transformers' `generate`."""

import dataclasses
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


def drawn(models, case, *, samples=1, without=None, **options):
    """What is drawn, with `samples` of each prompt; `without` leaves one rule out."""
    config, ends = sampling(case, **options)
    if without is not None:
        config = dataclasses.replace(config, **{without: None if without == "forced_bos" else ()})
    tokens = np.concatenate(list(stream_tokens(sampling=config, num_samples=samples, **given(models, case)))).T.tolist()
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


def rules(case):
    """What must be so of the ids, by the rule that says it; None where a text is too short to tell."""
    config, _ = sampling(case)
    forced = config.forced_bos is not None and case != "gpt2, several tokens"
    checks = {
        "forced_bos": lambda ids: ids[0] == config.forced_bos,
        "begin_suppress": lambda ids: ids[forced] not in config.begin_suppress if len(ids) > forced else None,
        "suppress": lambda ids: not set(ids) & set(config.suppress),
        "forced_eos": lambda ids: ids[-1] in config.forced_eos if len(ids) == config.max_tokens else None,
    }
    there = [name for name in checks if getattr(config, name) not in (None, ()) and (name != "forced_bos" or forced)]
    return {name: checks[name] for name in there}


DRAWS = {"temperature": 100.0}
"""At such a temperature every token comes up now and then."""
SAMPLES = 64


@pytest.mark.parametrize("options", [DRAWS, {"temperature": 0.8, "seed": 3}], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_draws_keep_the_same_places(models, case, options):
    """In every draw that tells, of which there are several."""
    told = dict.fromkeys(rules(case), 0)
    for ids in drawn(models, case, samples=SAMPLES, **options):
        for rule, check in rules(case).items():
            assert check(ids) in (True, None), (rule, ids)
            told[rule] += check(ids) is True
    assert told and min(told.values()) >= SAMPLES // 4, told


@pytest.mark.parametrize(("case", "rule"), [(case, rule) for case in CASES for rule in rules(case)])
def test_without_the_rule_draws_have_other_tokens_there(models, case, rule):
    """So the rule is what keeps them, and not the model or the other rules."""
    options = DRAWS | ({"temperature": 0.3} if rule == "begin_suppress" else {})  # they are the likeliest there
    texts = drawn(models, case, samples=SAMPLES, without=rule, **options)
    assert any(rules(case)[rule](ids) is False for ids in texts)


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


def test_the_first_files_of_bart_force_the_token_that_begins_a_text():
    """Whatever else config.json says is forced, as in transformers; generation_config.json never said it so."""
    old = {"force_bos_token_to_be_generated": True, "bos_token_id": 0}
    assert generation_defaults(old).forced_bos == generation_defaults(old | {"forced_bos_token_id": 7}).forced_bos == 0
    assert generation_defaults(old | {"force_bos_token_to_be_generated": False}).forced_bos is None
    assert generation_defaults({"bos_token_id": 0}, old).forced_bos is None
