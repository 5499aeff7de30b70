"""What a folder says of generation: the same settings and greedy ids as transformers', and files that are refused."""

import dataclasses
import json

import numpy as np
import pytest

from jaxllm.inference import SamplingConfig, stream_tokens
from jaxllm.interchange import open_published
from jaxllm.interchange.generation import GenerationDefaults, generation_defaults, generation_fields
from jaxllm.recipe import convert
from tests.interchange.battery import GOLDEN, write_published
from tests.interchange.encoder_decoder_battery import search_inputs

CASES = json.loads((GOLDEN / "generation_settings.json").read_text())["cases"]
BART, T5 = "BartForConditionalGeneration", "T5ForConditionalGeneration"
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
RULES = ("forced_bos_token_id", "forced_eos_token_id", "suppress_tokens", "begin_suppress_tokens", "bad_words_ids")


@pytest.fixture(scope="module")
def searches(tmp_path_factory):
    return {
        name: search_inputs(name, tmp_path_factory.mktemp(name)) for name in {case["architecture"] for case in CASES.values()}
    }


def published(folder, case):
    """The folder of a case."""
    write_published(folder, case["architecture"])
    fields = json.loads((folder / "config.json").read_text())
    fields = {name: value for name, value in fields.items() if name not in (*TOKENS, *RULES)} | case["said"]
    (folder / "config.json").write_text(json.dumps(fields))
    if case["generation"] is not None:
        (folder / "generation_config.json").write_text(json.dumps(case["generation"]))
    return open_published(folder)


@pytest.mark.parametrize("case", CASES)
def test_settings_are_those_of_transformers(case, tmp_path):
    case = CASES[case]
    found, wanted = published(tmp_path, case), case["settings"]
    told = generation_fields(found.generation)
    names = TOKENS[:3] + RULES if case["generation"] is None else RULES  # of tokens, config.json counts beside the other file
    assert {name: told[name] for name in names if name in told} == {name: wanted[name] for name in names if name in wanted}
    if (start := wanted.get("decoder_start_token_id", wanted.get("bos_token_id"))) is not None:
        assert found.config.start_id == start


@pytest.mark.parametrize("case", [name for name, case in CASES.items() if case["ids"] is not None])
def test_greedy_ids_are_those_of_transformers(case, searches, tmp_path):
    wanted, found = CASES[case]["ids"], published(tmp_path, CASES[case])
    said = found.generation
    fields = {name: getattr(said, name) for name in ("suppress", "begin_suppress", "forced_bos", "forced_eos")}
    given = searches[CASES[case]["architecture"]] | {"prompts": [[found.config.start_id]] * len(wanted)}
    sampling = SamplingConfig(max_tokens=6, temperature=0.0, **fields)
    written = np.concatenate(list(stream_tokens(sampling=sampling, **given))).T.tolist()
    assert [until(ids, said.eos_ids) for ids in written] == [until(row[1:], said.eos_ids) for row in wanted]


def until(ids, ends):
    places = [place for place, token in enumerate(ids) if token in ends]
    return ids[: places[0] + 1] if places else ids


def test_an_empty_file_says_that_nothing_is_forced():
    config = {"forced_eos_token_id": 2, "force_bos_token_to_be_generated": True, "bos_token_id": 0}
    assert (generation_defaults(config).forced_bos, generation_defaults(config).forced_eos) == (0, (2,))
    assert generation_defaults(config, {}) == GenerationDefaults(bos_id=0)


@pytest.mark.parametrize("ends", [(2,), (5, 7), ()])
def test_a_suppressed_token_stays_suppressed_even_where_it_ends_a_text(ends):
    said = GenerationDefaults(eos_ids=ends, suppress=(5, 9))
    assert generation_defaults({"eos_token_id": 5}, generation_fields(said)).suppress == (5, 9)


@pytest.mark.parametrize(
    ("forced", "barred", "bad"),
    [({"forced_eos": (5,)}, [9], [[5]]), ({"forced_bos": 9}, [5], [[9]]), ({"forced_eos": (5, 7)}, [5, 9], None)],
)
def test_what_is_forced_is_not_among_the_suppressed_tokens_of_a_file(forced, barred, bad):
    """transformers refuses a folder in which all that may stand in a place is suppressed."""
    fields = generation_fields(GenerationDefaults(suppress=(5, 9), **forced))
    assert (fields["suppress_tokens"], fields.get("bad_words_ids")) == (barred, bad)
    assert set(generation_defaults(fields).suppress) == {5, 9}


ID, LIST = "a token id in 0..60", "a list, each entry a token id in 0..60"
BAD = [
    ("eos_token_id", "</s>", f"{ID} or a list of them"),
    ("eos_token_id", [[2]], f"{ID} or a list of them"),
    ("forced_eos_token_id", 2.0, f"{ID} or a list of them"),
    ("forced_eos_token_id", [2, 61], f"{ID} or a list of them"),
    ("forced_bos_token_id", [2], ID),
    ("forced_bos_token_id", -1, ID),
    ("forced_bos_token_id", True, ID),
    ("bos_token_id", "0", ID),
    ("pad_token_id", 0.0, ID),
    ("suppress_tokens", 5, LIST),
    ("suppress_tokens", [5, -1], LIST),
    ("begin_suppress_tokens", [5, 99], LIST),
    ("begin_suppress_tokens", {"5": 1}, LIST),
    ("bad_words_ids", [5], "a list of lists, each entry of those a token id in 0..60"),
    ("bad_words_ids", [[5], []], "a list of lists, each entry of those a token id in 0..60"),
    ("bad_words_ids", [[5, 61]], "a list of lists, each entry of those a token id in 0..60"),
    ("bad_words_ids", 5, "a list of lists, each entry of those a token id in 0..60"),
]


@pytest.mark.parametrize(("name", "value", "wanted"), BAD, ids=[f"{name}={value}" for name, value, _ in BAD])
def test_what_is_no_token_of_the_model_is_refused_by_file_and_name(name, value, wanted, tmp_path):
    write_published(tmp_path, BART)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({"decoder_start_token_id": 2, name: value}))
    with pytest.raises(ValueError) as error:
        open_published(tmp_path)
    assert str(error.value) == f"{name} in {path} must be {wanted}: got {value!r}; mend it, or take it out of the file"
    path.write_text(json.dumps({"decoder_start_token_id": 2, name: None}))
    open_published(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("[]", "must hold fields, {...}: got list"), ("{", "is not JSON")])
def test_a_file_without_fields_is_refused(text, message, tmp_path):
    write_published(tmp_path, BART)
    (tmp_path / "generation_config.json").write_text(text)
    with pytest.raises(ValueError) as error:
        open_published(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'generation_config.json'} {message}")


def told(folder, file, **fields):
    """Adds fields to a file of a folder."""
    path = folder / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | fields))
    return path


def test_the_decoders_vocabulary_counts_where_it_has_its_own(tmp_path):
    write_published(tmp_path, "MarianMTModel.separate")
    told(tmp_path, "generation_config.json", forced_eos_token_id=53)
    with pytest.raises(ValueError, match=r"forced_eos_token_id in .* must be a token id in 0\.\.52 or a list of them: got 53"):
        open_published(tmp_path)


@pytest.mark.parametrize(
    ("said", "shown", "counts"),
    [
        ({"pad_token_id": -1}, "pad_token_id=-1", {"pad_id": 1}),  # what config.json says
        ({"pad_token_id": 50256, "bos_token_id": 61}, "bos_token_id=61, pad_token_id=50256", {"pad_id": 1, "bos_id": 0}),
        ({"eos_token_id": [38, 61]}, "eos_token_id=[38, 61]", {"eos_ids": (38,)}),
        ({"eos_token_id": [61]}, "eos_token_id=[61]", {"eos_ids": (2,)}),
    ],
)
def test_one_warning_tells_special_tokens_that_the_model_has_not(said, shown, counts, tmp_path):
    write_published(tmp_path, BART)
    told(tmp_path, "config.json", bos_token_id=0, eos_token_id=2, pad_token_id=1)
    path = told(tmp_path, "generation_config.json", **said)
    with pytest.warns(UserWarning) as warned:
        found = open_published(tmp_path).generation
    said = f"{path} has tokens that are not among the model's 0..60: {shown}; they count as none"
    assert [str(each.message) for each in warned] == [said]
    assert {name: getattr(found, name) for name in counts} == counts


def test_a_beginning_that_the_model_has_not_is_that_of_config_json(tmp_path):
    write_published(tmp_path, T5)
    told(tmp_path, "config.json", decoder_start_token_id=7)
    told(tmp_path, "generation_config.json", decoder_start_token_id=-1)
    with pytest.warns(UserWarning, match="decoder_start_token_id=-1"):
        assert open_published(tmp_path).config.start_id == 7


@pytest.mark.parametrize("value", [-1, 0.0, "0", [0], 50256, None])
@pytest.mark.parametrize("name", ["ViTForImageClassification", "BertForMaskedLM"])
def test_a_model_that_writes_no_text_loads_whatever_is_said_of_it(name, value, tmp_path):
    write_published(tmp_path, name)
    told(tmp_path, "config.json", pad_token_id=value, bos_token_id=value, suppress_tokens=5)
    told(tmp_path, "generation_config.json", pad_token_id=value, forced_eos_token_id=-1)
    assert open_published(tmp_path).generation == GenerationDefaults()


def test_an_encoder_keeps_the_tokens_of_config_json(tmp_path):
    write_published(tmp_path, "BertForMaskedLM")
    told(tmp_path, "config.json", pad_token_id=3, bos_token_id=61)
    assert open_published(tmp_path).generation == GenerationDefaults(pad_id=3)


def test_config_json_may_have_tokens_that_the_model_has_not_but_no_other_things(tmp_path):
    """-1 is none in older files; a small model may be published with a large one's tokens, which it never writes."""
    write_published(tmp_path, T5)
    told(tmp_path, "config.json", eos_token_id=[5, 50256], pad_token_id=-1, bos_token_id=61)
    assert open_published(tmp_path).generation == GenerationDefaults(eos_ids=(5,))
    told(tmp_path, "config.json", eos_token_id="5")
    with pytest.raises(
        ValueError, match=r"eos_token_id in .*config.json must be a token id in 0..60 or a list of them: got '5'"
    ):
        open_published(tmp_path)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"forced_eos_token_id": -1}, {}),
        ({"forced_eos_token_id": 50256}, {}),
        ({"forced_eos_token_id": [61, 2]}, {"forced_eos": (2,)}),
        ({"forced_bos_token_id": 61}, {}),
        ({"suppress_tokens": [5, 61], "begin_suppress_tokens": [-1]}, {"suppress": (5,)}),
        ({"bad_words_ids": [[61], [7], [7, 61]]}, {"suppress": (7,)}),
    ],
    ids=str,
)
def test_what_config_json_forces_or_bars_beyond_the_vocabulary_is_told_and_not_exported(said, kept, tmp_path):
    write_published(tmp_path / "in", T5)
    plain = open_published(tmp_path / "in").generation
    path = told(tmp_path / "in", "config.json", **said)
    shown = ", ".join(f"{name}={value}" for name, value in said.items())
    with pytest.warns(UserWarning) as warned:
        convert(tmp_path / "in", tmp_path / "out")
    wanted = f"{path} has tokens that are not among the model's 0..60: {shown}; they count as none"
    assert wanted in [str(each.message) for each in warned]
    assert open_published(tmp_path / "out").generation == dataclasses.replace(plain, **kept)
