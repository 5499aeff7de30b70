"""`jaxllm generate`: with a model that was never trained, and once from the folder of a run."""

import dataclasses
from pathlib import Path

import jax
import pytest

import jaxllm
import jaxllm.recipe
from jaxllm.cli import run
from jaxllm.cli.generate import SAMPLING, _parser
from jaxllm.data.tokenizer import CharacterTokenizer
from jaxllm.inference import SamplingConfig, generate
from jaxllm.interchange import GenerationDefaults
from jaxllm.models import Transformer, TransformerConfig, init_params
from jaxllm.recipe import Loaded
from tests.recipe import tiny

TOKENIZER = CharacterTokenizer("abcdefgh")


@pytest.fixture(scope="module")
def trained():
    config = TransformerConfig(vocab_size=8, context_len=16, num_layers=1, embed_dim=16, num_heads=2)
    model = Transformer(config)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    return Loaded(model=model, params=params, tokenizer=TOKENIZER, source=Path("runs/demo"))


@pytest.fixture
def asked(trained, monkeypatch):
    """What the command asked `load` for."""
    asked = []

    def load(path, *, step=None):
        asked.append((path, step))
        return trained

    monkeypatch.setattr(jaxllm.recipe, "load", load)
    return asked


def test_prompt_and_completion_are_printed(trained, asked, capsys):
    assert run(["generate", "runs/demo", "--prompt", "abc", "--max-tokens", "20", "--seed", "3"]) == 0
    sampling = SamplingConfig(max_tokens=20, seed=3)
    (text,) = generate(trained.model, trained.params, TOKENIZER, ["abc"], sampling)
    assert len(text) == 20
    assert capsys.readouterr().out == f"abc{text}\n"
    assert asked == [("runs/demo", None)]


def test_each_option_reaches_the_sampling(asked, capsys, monkeypatch):
    seen = []

    def record(*args, **options):
        seen.append((args[-1], options["num_samples"]))
        return ["x"] * options["num_samples"]

    monkeypatch.setattr("jaxllm.inference.generate", record)
    words = (
        "generate run --prompt a --max-tokens 9 --temperature 0.5 --top-k 4 --top-p 0.9 --min-p 0.1 "
        "--repetition-penalty 1.2 --seed 7 --stop x --stop yz --num-samples 2 --checkpoint 40 "
        "--suppress 3 --suppress 5 --begin-suppress 1 --forced-bos 6 --forced-eos 2 --forced-eos 4 "
        "--num-beams 4 --length-penalty 0.5 --early-stopping"
    )
    assert run(words.split()) == 0
    expected = SamplingConfig(
        max_tokens=9, temperature=0.5, top_k=4, top_p=0.9, min_p=0.1, repetition_penalty=1.2, seed=7, stop=("x", "yz"),
        suppress=(3, 5), begin_suppress=(1,), forced_bos=6, forced_eos=(2, 4), num_beams=4,
        length_penalty=0.5, early_stopping=True,
    )  # fmt: skip
    assert seen == [(expected, 2)] and asked == [("run", 40)]
    assert {field.name for field in dataclasses.fields(SamplingConfig)} == set(SAMPLING)
    assert capsys.readouterr().out.count("a") == 2


def test_what_a_model_was_published_with_is_switched_off_by_none(asked, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr("jaxllm.inference.generate", lambda *args, **options: seen.append(args[-1]) or ["x"])
    said = GenerationDefaults(suppress=(3,), begin_suppress=(4,), forced_bos=5, forced_eos=(6,))
    trained = jaxllm.recipe.load("run", step=None)
    monkeypatch.setattr("jaxllm.recipe.load", lambda *args, **options: dataclasses.replace(trained, generation=said))
    words = ["generate", "run", "--prompt", "a"]
    assert run(words) == 0 and seen[-1] == SamplingConfig(suppress=(3,), begin_suppress=(4,), forced_bos=5, forced_eos=(6,))
    off = ["--suppress", "none", "--begin-suppress", "None", "--forced-bos", "none", "--forced-eos", "NONE"]
    assert run([*words, *off]) == 0 and seen[-1] == SamplingConfig()
    assert run([*words, "--forced-eos", "none", "--suppress", "7"]) == 0
    assert seen[-1] == SamplingConfig(suppress=(3, 7), begin_suppress=(4,), forced_bos=5)
    capsys.readouterr()
    assert run([*words, "--suppress", "none", "--suppress", "7"]) == 2
    assert "error: --suppress none must stand alone: got none 7; give ids or none" in capsys.readouterr().err
    assert run([*words, "--stop", "none"]) == 0 and seen[-1].stop == ("none",)


def test_what_is_no_token_is_refused():
    with pytest.raises(ValueError, match="^--forced-bos: must be a token's id or none: got 'the'"):
        _parser().parse_args(["run", "--prompt", "a", "--forced-bos", "the"])


def test_help_names_the_defaults_of_the_sampling():
    defaults = SamplingConfig()
    text = " ".join(_parser().format_help().split())
    for option in ("max_tokens", "temperature", "seed"):
        assert f"(default: {getattr(defaults, option)})" in text.split(f"--{option.replace('_', '-')} ")[-1][:120]


def test_a_prompt_that_is_refused_prints_nothing_but_the_error(asked, capsys):
    assert run(["generate", "run", "--prompt", "a" * 17]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: A prompt must fit into the model's context of 16 tokens: got 17 tokens")


def test_a_bad_option_is_refused_before_anything_is_loaded(asked, capsys):
    assert run(["generate", "run", "--prompt", "a", "--top-p", "3"]) == 2
    assert "top_p must be above 0 and at most 1: got 3.0" in capsys.readouterr().err and asked == []


def test_the_folder_of_a_run_is_all_it_takes(tmp_path, capsys):
    """Trained, saved, loaded twice: the command prints what `jaxllm.load` generates."""
    run_dir = str(tmp_path / "run")
    jaxllm.fit(tiny.config(run_dir=run_dir))
    capsys.readouterr()
    options = ["--max-tokens", "40", "--temperature", "0.8", "--top-k", "20", "--seed", "4"]
    assert run(["generate", run_dir, "--prompt", "ROMEO:", *options]) == 0
    printed = capsys.readouterr().out
    (text,) = jaxllm.load(run_dir).generate("ROMEO:", max_tokens=40, temperature=0.8, top_k=20, seed=4)
    assert printed == f"ROMEO:{text}\n" and len(text) == 40
    (first,) = jaxllm.load(run_dir, step=8).generate("ROMEO:", max_tokens=40, temperature=0.8, top_k=20, seed=4)
    assert run(["generate", run_dir, "--prompt", "ROMEO:", *options, "--checkpoint", "8"]) == 0
    assert capsys.readouterr().out == f"ROMEO:{first}\n" != printed
