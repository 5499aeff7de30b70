"""Fields that a search may choose from: which are taken, and in which words others are refused."""

import pytest

from jaxllm.cli.overrides import override
from jaxllm.sweep import read_space
from jaxllm.sweep.field import as_options, field_hint, read_value, with_values
from jaxllm.sweep.space import Choice, Range, own_values
from tests.recipe import tiny


def test_ranges_and_choices_take_the_types_of_their_fields():
    texts = ["--optimizer.learning-rate=1e-4..1e-2:log", "batch_size=4..16", "model.bias=true,false", "model.dropout=0,0.1"]
    rate, size, bias, dropout = read_space(tiny.config(), texts)
    assert rate == Range(field="optimizer.learning_rate", low=1e-4, high=1e-2, log=True, whole=False)
    assert size == Range(field="batch_size", low=4, high=16, log=False, whole=True)
    assert isinstance(bias, Choice) and bias.values == (True, False)
    assert isinstance(dropout, Choice) and all(type(value) is float for value in dropout.values)
    (numbers,) = read_space(tiny.config(), ["optimizer.clip_norm=none,1"])
    assert numbers.ends == (None, 1.0)
    again = read_space(tiny.config(), [each.text for each in (rate, size, bias, dropout)])
    assert again == (rate, size, bias, dropout)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("batch_size", "--search needs FIELD=LOW..HIGH, FIELD=LOW..HIGH:log or FIELD=A,B,C: got 'batch_size'"),
        ("optimizer.learning_rat=1..2", "unknown field optimizer.learning_rat: did you mean optimizer.learning_rate?"),
        ("optimizer=1,2", "optimizer is a group of fields: name one of them, such as optimizer.name"),
        ("batch_size=4..x", "batch_size must be a whole number: got 'x'"),
        ("batch_size=1.5..8", "batch_size must be a whole number: got '1.5'"),
        ("batch_size=4,many", "batch_size must be a whole number: got 'many'"),
        ("optimizer.name=adamw,adamv", "optimizer.name must be one of"),
        ("optimizer.learning_rate=1e-2..1e-4", "must go from the lower number to the higher: got 0.01 to 0.0001"),
        ("optimizer.learning_rate=0..1:log", "a logarithmic range of optimizer.learning_rate must begin above 0: got 0.0"),
        ("optimizer.learning_rate=1e-4..1:lg", "a range is LOW..HIGH or LOW..HIGH:log: got '1e-4..1:lg'"),
        ("optimizer.learning_rate=nan..1", "optimizer.learning_rate must be a number or null: got 'nan'"),
        ("batch_size=8", "a search needs two values of batch_size or more: got 8; one alone is --batch_size 8"),
        ("batch_size=8,8", "the values of batch_size must differ: got 8,8"),
        ("seed=0,1", "several seeds are run by --seeds 0,1,2"),
        ("evaluate.every=1,2", "evaluate.every is not searched: it must be the same in all trials"),
        ("run_dir=a,b", "run_dir is not searched"),
        ("batch_size=0..8", "--search batch_size: the recipe refuses 0: batch_size must be at least 1: got 0"),
    ],
)
def test_others_are_refused(text, message):
    with pytest.raises(ValueError) as error:
        read_space(tiny.config(), [text])
    assert message in str(error.value)


def test_a_field_is_searched_once():
    with pytest.raises(ValueError, match="each field can be searched once: got batch_size 2 times"):
        read_space(tiny.config(), ["batch_size=4,8", "batch_size=16,32"])


def test_values_that_are_possible_only_together_are_taken():
    space = read_space(tiny.config(), ["model.embed_dim=16,18", "model.num_heads=2,3"])  # 3 divides 18, not 16
    assert own_values(tiny.config(), space) == {"model.embed_dim": 16, "model.num_heads": 2}
    with pytest.raises(ValueError, match="--search model.num_heads: the recipe refuses 5"):
        read_space(tiny.config(), ["model.embed_dim=16,18", "model.num_heads=2,5"])


def test_options_put_the_same_values_in_as_the_command_line_does():
    recipe = tiny.config()
    values = {"batch_size": 4, "model.bias": False, "model.dropout": 0.125, "optimizer.learning_rate": 1e-05, "accumulate": 2}
    values |= {
        "optimizer.name": "lion",
        "optimizer.clip_norm": None,
        "optimizer.schedule.warmup_steps": 3,
        "data.packing": "fit",
    }
    assert override(recipe, as_options(recipe, values)) == with_values(recipe, values) != recipe


def test_a_number_drawn_is_the_number_printed():
    rate = Range(field="optimizer.learning_rate", low=0.0001, high=0.098765, log=True)
    assert rate.rounded(0.0123456789) == 0.01235 and rate.rounded(0.098765) == 0.098765
    assert Range(field="batch_size", low=1, high=9, whole=True).rounded(3) == 3


def test_text_stays_text_where_the_field_holds_text():
    recipe = tiny.config()
    assert read_value(field_hint(recipe, "data.dataset"), "data.dataset", "8") == "8"
    assert read_value(field_hint(recipe, "pretrained"), "pretrained", "none") is None
