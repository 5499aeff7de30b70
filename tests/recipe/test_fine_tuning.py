"""What a recipe does for methods and tasks: references, prompts with a text, rows for prompts, ranks, heads of images."""

import dataclasses
import json

import jax
import numpy as np
import pytest

import jaxllm
from jaxllm.checkpoint import CheckpointConfig
from jaxllm.cli import run
from jaxllm.data import DataConfig, ImageDataConfig, TaskDataConfig, TokenizerConfig
from jaxllm.data.tfds_builder import Image, Label, write_set
from jaxllm.finetune import AdaLoRA, BitFit, Freeze, Full, LoRA, PrefixTuning, PromptTuning, PTuning, VeRA, learning_rate
from jaxllm.finetune.tasks import PreferenceTuning, TextClassification, TextToText
from jaxllm.finetune.tasks.mixture import Mixture
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig, VisionConfig
from jaxllm.recipe import find_recipe, load_adapter, open_for_evaluation, save_adapter
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.evaluation import open_evaluation
from jaxllm.recipe.load import first_state
from jaxllm.recipe.measure import measure
from jaxllm.recipe.pretrained import described
from jaxllm.recipe.program import Program
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.sharding import MeshConfig, make_mesh
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig, read_metrics
from jaxllm.training.objectives import ImageClassification, MaskedLM
from tests.finetune.tasks.chats import decoder, words, write_sets
from tests.finetune.tasks.conftest import sentence
from tests.quick import some
from tests.recipe import tiny
from tests.recipe.test_classify import PICTURES, png

WORDPIECE = TokenizerConfig(kind="wordpiece", vocab_size=300)
SMALL = dict(num_layers=1, num_heads=2, embed_dim=16, context_len=64, init_std=0.2)
ENCODER = TransformerConfig(causal=False, head=HeadConfig(kind="none"), **SMALL)  # type: ignore[arg-type]
CLASSES = TextClassification(read="mean", pooler=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wiring")
    write_sets(folder)
    rows = [(f"t:{i}", text, ("bad", "good")[label]) for i in range(70) for text, label in [sentence(i)]]
    kinds = {"id": None, "text": None, "label": Label(("bad", "good"))}
    for name, own in (("reviews", rows[:40]), ("films", rows[30:])):
        write_set(name, {"train": own[:24], "validation": own[24:]}, folder, description="", features=kinds)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder, monkeypatch):
    monkeypatch.setenv("JAXLLM_CACHE", str(folder / "cache"))


def recipe(folder, dataset, run_dir, **changes):
    settings = dict(
        steps=4,
        run_dir=str(run_dir),
        data=TaskDataConfig(dataset=dataset, data_dir=str(folder), seq_len=48, tokenizer=WORDPIECE),
        optimizer=OptimizerConfig(learning_rate=1e-2, weight_decay=0.0, schedule=ScheduleConfig(decay_steps=60)),
        evaluate=EvaluateConfig(every=2),
        checkpoint=CheckpointConfig(every=2),
    )
    return tiny.config(**settings | changes)


def lines(run_dir, split="train"):
    return [line for line in read_metrics(run_dir) if line["split"] == split]


def pairs(folder, run_dir, **changes):
    data = TaskDataConfig(
        dataset="pairs", data_dir=str(folder), seq_len=96, tokenizer=TokenizerConfig(kind="bpe", vocab_size=300)
    )
    task = PreferenceTuning(beta=0.5, template="plain")
    settings = dict(data=data, objective=task, model=decoder(vocab_size=None))
    return recipe(folder, "pairs", run_dir, **settings | changes)


@pytest.mark.parametrize("method", some([Full(), LoRA(rank=2, targets=("unembed",))], [Full()]), ids=["full", "unembed"])
def test_preferences_of_a_model_that_learns(method, folder, tmp_path, capsys):
    """The first loss is log 2 of a model that is its own reference; a run that goes on, also on many devices and by another
    machine that has kept nothing, learns the same."""
    changes = {} if isinstance(method, Full) else {"model": decoder(vocab_size=None, tie_embeddings=False), "steps": 2}
    whole = dataclasses.replace(pairs(folder, tmp_path / "whole", method=method), **changes)
    jaxllm.fit(whole)
    assert "compared with the model as it was: what that says of 20 examples" in capsys.readouterr().out
    train = [line["loss"] for line in lines(tmp_path / "whole")]
    assert train[0] == pytest.approx(np.log(2), rel=1e-5) and train[-1] < train[0] - 1e-5
    assert abs(lines(tmp_path / "whole", "validation")[0]["rewards/margins"]) > 1e-4
    if not isinstance(method, Full):
        return
    part = dataclasses.replace(whole, run_dir=str(tmp_path / "part"), mesh=MeshConfig(data=2, fsdp=2), steps=2)
    jaxllm.fit(part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLLM_CACHE", str(tmp_path / "other"))
        jaxllm.fit(dataclasses.replace(part, steps=4, mesh=MeshConfig(data=1)))
    np.testing.assert_allclose([line["loss"] for line in lines(tmp_path / "part")], train, rtol=2e-4)
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXLLM_CACHE", str(tmp_path / "third"))
        assert run(["evaluate", str(tmp_path / "whole"), "--checkpoint", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert found["loss"] == pytest.approx(lines(tmp_path / "whole", "validation")[-1]["loss"], rel=1e-4)
    assert run(["evaluate", str(tmp_path / "whole"), "--checkpoint", "4", "--data", str(folder / "pairs"), "--json"]) == 0
    named = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert named["loss"] == pytest.approx(found["loss"], rel=1e-5)
    assert named["metrics"]["accuracy"] == found["metrics"]["accuracy"]


@pytest.mark.parametrize("method", [BitFit(), Freeze(patterns=("embed/*",)), LoRA(also=("final_norm/*",)), LoRA()], ids=repr)
def test_who_needs_a_reference(method, folder, tmp_path):
    made = pairs(folder, tmp_path, method=method, model=decoder(bias=True))
    assert Program(made, make_mesh(made.mesh, 8)).compares == (method != LoRA())
    orpo = dataclasses.replace(made, objective=PreferenceTuning(kind="orpo"))
    assert not Program(orpo, make_mesh(made.mesh, 8)).compares


def test_left_out_preferences_are_told(folder, tmp_path):
    long = [json.dumps([{"role": "user", "content": words(np.random.default_rng(0), 60)}])] * 3
    answers = [json.dumps([{"role": "assistant", "content": name}]) for name in ("yes", "no")]
    rows = [(f"l:{i}", prompt, *answers) for i, prompt in enumerate([*long, '[{"role": "user", "content": "a boat"}]'])]
    kinds = {"id": None, "messages": None, "chosen": None, "rejected": None}
    write_set("long", {"train": rows}, tmp_path, description="", features=kinds)
    made = pairs(tmp_path, tmp_path / "run", method=LoRA())
    data = dataclasses.replace(made.data, dataset="long", seq_len=64, validation_split=None)
    (told,) = assemble(dataclasses.replace(made, data=data)).notes
    assert told == "train: 3 of 4 records are left out, with nothing to learn in their first 64 tokens"


def test_prompts_from_a_text(folder, tmp_path, capsys):
    """The tokenizer reads the text; the run goes on, is loaded, and its adapter is saved, with what it read."""
    method = PromptTuning(tokens=4, initialization="text", text="the film was lovely")
    base = recipe(folder, "reviews", tmp_path / "base", model=CLASSES.headed(ENCODER), objective=CLASSES, steps=1)
    jaxllm.fit(base)
    made = dataclasses.replace(
        base, run_dir=str(tmp_path / "run"), pretrained=base.run_dir, model=FromPretrained(), method=method, steps=2
    )
    capsys.readouterr()
    jaxllm.fit(made)
    assert "one text a row, without data.packing: PromptTuning puts tokens of its own before each" in capsys.readouterr().out
    jaxllm.fit(dataclasses.replace(made, steps=3))
    m = jaxllm.load(tmp_path / "run")
    assert m.recipe.method.text_ids == tuple(m.tokenizer.encode_special(method.text).ids)
    job = assemble(m.recipe, m.tokenizer)
    begun = first_state(job.recipe, job.model, job.mesh, job.abstract)[0].whole
    ids = [m.recipe.method.text_ids[i % len(m.recipe.method.text_ids)] for i in range(4)]
    np.testing.assert_array_equal(begun["prompt"]["table"], begun["embed"]["table"][np.array(ids)])
    assert len(job.train.rows(np.arange(6))["tokens"]) == 6  # none shares a row
    save_adapter(m, tmp_path / "adapter")
    again = load_adapter(base.run_dir, tmp_path / "adapter")
    np.testing.assert_array_equal(again.params["prompt"]["table"], m.params["prompt"]["table"])
    other = dataclasses.replace(made, steps=4, method=dataclasses.replace(method, text="the film was dull"))
    with pytest.raises(ValueError, match="holds a run of another recipe: method.text is 'the film was lovely' there"):
        jaxllm.fit(other)


def test_an_encoder_decoder_with_prompts(folder, tmp_path):
    """One text a row anyway, and of packed plain text a refusal."""
    pair = EncoderDecoderConfig(
        encoder=dataclasses.replace(ENCODER, position="relative"),
        decoder=TransformerConfig(cross_attention=True, position="relative", **SMALL),  # type: ignore[arg-type]
    )
    made = recipe(folder, "texts", tmp_path / "run", model=pair, objective=TextToText(), method=PromptTuning(tokens=3), steps=1)
    jaxllm.fit(made)
    assert np.isfinite(lines(tmp_path / "run")[0]["loss"])
    plain = DataConfig(dataset="tiny_shakespeare", seq_len=16, tokenizer=TokenizerConfig(kind="characters"))
    masked = dataclasses.replace(made, data=plain, model=dataclasses.replace(ENCODER, head=HeadConfig()), objective=MaskedLM())
    with pytest.raises(ValueError, match="method PromptTuning needs one text in each row of this model: set data.cross_doc"):
        assemble(masked)


def test_the_best_checkpoint_by_what_is_written(folder, tmp_path):
    metric, task = "rouge_l", TextToText(prompt="{text} ", target_len=8)
    made = recipe(
        folder,
        "texts",
        tmp_path / "run",
        model=decoder(vocab_size=None),
        objective=task,
        evaluate=EvaluateConfig(every=2, metric=metric),
    )
    jaxllm.fit(made)
    for line in lines(tmp_path / "run", "validation"):
        job, params, step = open_for_evaluation(tmp_path / "run", step=line["step"])
        written = job.recipe.objective.write(job.model, params, job.rows("validation"), job.data, examples=100)
        assert line[metric] == pytest.approx(written.scores().values()[metric]) and step == line["step"]
    assert np.isfinite(line["loss"]) and [line["step"] for line in lines(tmp_path / "run", "validation")] == [2, 4]
    with pytest.raises(
        ValueError, match="evaluate.metric must be one of loss, accuracy, perplexity, rouge_l, bleu: got 'rouge'"
    ):
        assemble(dataclasses.replace(made, evaluate=EvaluateConfig(metric="rouge")))


@pytest.mark.parametrize("method", some([LoRA(rank=2), Full()], [LoRA(rank=2)]), ids=["lora", "full"])
def test_what_is_written_after_an_explicit_mesh(method, folder, tmp_path):
    mesh, task = MeshConfig(data=1, fsdp=2, explicit=True), TextToText(prompt="{text} ", target_len=4)
    model = decoder(vocab_size=None)
    jaxllm.fit(recipe(folder, "texts", tmp_path / "run", model=model, objective=task, method=method, mesh=mesh, steps=1))
    assert json.loads((tmp_path / "run" / "results.json").read_text())["validation"]["written"]["answers"]


def test_a_learning_rate_for_the_method(folder, tmp_path):
    """Where the recipe has none, as a run writes it down; a model from nothing has that of `OptimizerConfig`."""
    base = jaxllm.fit(recipe(folder, "reviews", tmp_path / "base", model=CLASSES.headed(ENCODER), objective=CLASSES, steps=2))
    fresh = recipe(folder, "reviews", tmp_path, model=CLASSES.headed(ENCODER), objective=CLASSES, optimizer=OptimizerConfig())
    tuned = dataclasses.replace(fresh, pretrained=str(base.run_dir), model=FromPretrained())
    pissa = LoRA(initialization="pissa")
    rates = {type(method).__name__: described(dataclasses.replace(tuned, method=method)).optimizer.learning_rate
             for method in (Full(), LoRA(), PrefixTuning(), BitFit())}  # fmt: skip
    assert (
        rates["LoRA"] == learning_rate(LoRA()) > rates["Full"] and learning_rate(pissa) < rates["LoRA"] < rates["PrefixTuning"]
    )
    assert described(fresh).optimizer.learning_rate == 1e-3
    prompts = (PromptTuning(initialization="text", text="a"), PromptTuning(), PromptTuning(initialization="random"))
    assert [learning_rate(prompt) for prompt in prompts] == [3e-3, 1e-2, 3e-2]
    with pytest.raises(ValueError, match="learning_rate must be given for lion: the methods' own rates are those of adamw"):
        jaxllm.fit(dataclasses.replace(tuned, optimizer=OptimizerConfig(name="lion")))
    assert learning_rate(Freeze(patterns=("embed/*",))) == learning_rate(Full()) < learning_rate(Freeze())
    jaxllm.fit(dataclasses.replace(tuned, method=LoRA(), run_dir=str(tmp_path / "run"), optimizer=OptimizerConfig(
        schedule=ScheduleConfig(kind="constant"))))  # fmt: skip
    assert [line["learning_rate"] for line in lines(tmp_path / "run")] == pytest.approx(4 * [learning_rate(LoRA())])
    assert find_recipe(str(tmp_path / "run")).optimizer.learning_rate == learning_rate(LoRA())


def test_more_steps_behind_the_end_of_the_schedule(folder, tmp_path, capsys):
    ending = OptimizerConfig(schedule=ScheduleConfig(kind="linear", final_fraction=0.0))
    made = recipe(
        folder, "reviews", tmp_path / "run", model=CLASSES.headed(ENCODER), objective=CLASSES, optimizer=ending, steps=2
    )
    jaxllm.fit(made)
    assert "learning rate" not in capsys.readouterr().out
    jaxllm.fit(dataclasses.replace(made, steps=3))
    assert "warning: the learning rate came to 0 at step 2, and more steps change nothing" in capsys.readouterr().out


def test_a_second_text_that_is_not_read_is_told(folder, tmp_path):
    rows = [(f"p:{i}", words(np.random.default_rng(i), 5), f"second {i}", "ab"[i % 2]) for i in range(24)]
    features = {"id": None, "text": None, "text_pair": None, "label": Label(("a", "b"))}
    write_set("twos", {"train": rows, "validation": rows}, tmp_path, description="", features=features)
    made = recipe(tmp_path, "twos", tmp_path / "run", model=CLASSES.headed(ENCODER), objective=CLASSES, steps=1)
    made = dataclasses.replace(made, data=dataclasses.replace(made.data, test_split=None))
    assert any("the set has text_pair, which is not read" in note for note in assemble(made).notes)
    pairs = dataclasses.replace(made, data=dataclasses.replace(made.data, pair_feature="text_pair"))
    assert not any("text_pair" in note for note in assemble(pairs).notes)
    for each, shown in ((made, False), (pairs, True)):
        job = assemble(each)
        state = first_state(job.recipe, job.model, job.mesh, job.abstract).state
        assert (" | second" in measure(job, state.whole, "validation", 0)["sample"]) == shown


def test_an_average_is_not_pruned(folder, tmp_path):
    averaged = dict(method=AdaLoRA(), optimizer=OptimizerConfig(ema=0.9))
    with pytest.raises(
        ValueError, match="AdaLoRA does not prune an average of parameters: got optimizer.ema=0.9; leave it out"
    ):
        recipe(folder, "reviews", tmp_path, model=CLASSES.headed(ENCODER), objective=CLASSES, **averaged)


def test_ranks_are_written_down(folder, tmp_path, capsys):
    method = AdaLoRA(init_rank=4, target_rank=2, tinit=0, tfinal=1, targets=("query", "value"))
    made = recipe(
        folder, "reviews", tmp_path / "run", model=CLASSES.headed(ENCODER), objective=CLASSES, method=method, steps=6,
        evaluate=EvaluateConfig(every=3), checkpoint=CheckpointConfig(every=2),
    )  # fmt: skip
    stopped = jaxllm.fit(made, on_evaluation=lambda step, metrics: "enough" if step == 3 else None)
    file = tmp_path / "run" / "ranks.jsonl"
    assert stopped.step == 3 and len(file.read_text().splitlines()) == 1
    with file.open("a") as log:
        log.write('{"step": 5, "budget": 1, "ranks": {}}\n{"step": 6, "bud')  # of steps that were lost, and cut short
    jaxllm.fit(made)
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["step"] for record in records] == [3, 6] and records[-1]["budget"] == 4
    assert set(records[-1]["ranks"]) == {"layers/0/attention/query", "layers/0/attention/value"}
    assert all(sum(record["ranks"].values()) == record["budget"] for record in records)
    assert "step 6: a budget of 4 of 8 ranks" in capsys.readouterr().out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>Ranks</h2>" in page and "At step 6: 4 ranks over 2 matrices." in page


@pytest.mark.parametrize(
    "method",
    [
        AdaLoRA(init_rank=4, target_rank=2, tinit=0, tfinal=1, targets=("query", "value")),
        pytest.param(PTuning(tokens=3, hidden=8), marks=pytest.mark.slow),
        pytest.param(VeRA(rank=4), marks=pytest.mark.slow),
    ],
    ids=lambda method: type(method).__name__,
)
def test_a_method_that_goes_on_is_the_same_run(method, folder, tmp_path):
    """Bit by bit: what has learnt, ranks and the scores behind them among it, and the losses on the way."""
    settings = dict(model=CLASSES.headed(ENCODER), objective=CLASSES, method=method, steps=6, evaluate=EvaluateConfig(every=3))
    whole, parts = (recipe(folder, "reviews", tmp_path / name, **settings) for name in ("whole", "parts"))
    jaxllm.fit(whole)
    assert jaxllm.fit(parts, on_evaluation=lambda step, metrics: "enough" if step == 3 else None).step == 3
    assert jaxllm.fit(parts).step == 6
    losses = [[line["loss"] for line in lines(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[0] == losses[1] and len(losses[0]) > 1
    states = [jaxllm.load(tmp_path / name).params for name in ("whole", "parts")]
    jax.tree.map(np.testing.assert_array_equal, *states)
    if isinstance(method, AdaLoRA):
        assert (tmp_path / "whole" / "ranks.jsonl").read_text() == (tmp_path / "parts" / "ranks.jsonl").read_text()


@pytest.mark.parametrize("method", some([LoRA(rank=2), Full()], [LoRA(rank=2)]), ids=["lora", "full"])
def test_images_of_other_classes(method, folder, tmp_path, capsys):
    """The new classifier learns with any method, and a published model's blocks stay as they are with LoRA. A rate that is far
    from the method's is told."""
    for name, classes in (("two", "ab"), ("three", "xyz")):
        rows = [(str(i), png(picture), classes[i % len(classes)]) for i, picture in enumerate(PICTURES)]
        features = {"id": None, "image": Image(), "label": Label(tuple(classes))}
        write_set(name, {"train": rows}, tmp_path, description="", features=features)
    data = ImageDataConfig(dataset="two", data_dir=str(tmp_path), image_size=8, validation_split=None)
    encoder = TransformerConfig(num_layers=1, embed_dim=16, num_heads=2, causal=False, position="none")
    base = tiny.config(
        run_dir=str(tmp_path / "base"), steps=1, data=data, objective=ImageClassification(),
        model=VisionConfig(image_size=8, patch_size=4, encoder=encoder), optimizer=OptimizerConfig(learning_rate=1e-2),
    )  # fmt: skip
    jaxllm.fit(base)
    made = dataclasses.replace(
        base, run_dir=str(tmp_path / "run"), steps=2, pretrained=base.run_dir, model=FromPretrained(), method=method,
        data=dataclasses.replace(data, dataset="three"),
    )  # fmt: skip
    jaxllm.fit(made)
    assert f"learning rate 0.01 (usual for this method: {learning_rate(method):g})\n" in capsys.readouterr().out
    m, old = jaxllm.load(tmp_path / "run"), jaxllm.load(base.run_dir)
    job = assemble(m.recipe)
    begun = first_state(job.recipe, job.model, job.mesh, job.abstract)[0].whole
    moved = lambda a, b: not all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, (a, b)), strict=True))  # noqa: E731
    assert m.params["classifier"]["kernel"].shape == (16, 3) and moved(m.params["classifier"], begun["classifier"])
    blocks = [each["layers"]["ffw"] for each in (m.params, old.params)]
    assert moved(*blocks) == isinstance(method, Full)


def test_a_mixture_is_measured_by_its_parts(folder, tmp_path, capsys):
    objective = Mixture(task=CLASSES, others=("films",), temperature=2.0)
    made = recipe(
        folder, "reviews", tmp_path / "run", model=CLASSES.headed(ENCODER), objective=objective,
        evaluate=EvaluateConfig(every=1, metric="films/accuracy", patience=2), steps=12,
    )  # fmt: skip
    fitted = jaxllm.fit(made)
    records = lines(tmp_path / "run", "validation")
    own, other = (records[-1][f"{name}/accuracy"] for name in ("reviews", "films"))
    assert records[-1]["accuracy"] == pytest.approx((own * 16 + other * 16) / 32) and records[-1]["examples"] == 32
    values = [record["films/accuracy"] for record in records]
    best = int(np.argmax(values))  # patience goes by it: two looks without a better one end the run
    assert fitted.ended == "patience" and fitted.step == best + 3 < 12
    said = capsys.readouterr().out
    assert "a mixture: reviews 50.0%, films 50.0%" in said and "no better validation films/accuracy in 2 evaluations" in said
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["validation"]["step"] == max(step + 1 for step, value in enumerate(values) if value == values[best]) or (
        results["validation"]["metrics"]["films/accuracy"]["value"] == values[best]
    )
    alone = open_evaluation(str(tmp_path / "run"), data=str(folder / "films"), split="validation")
    metrics = measure(alone.job, alone.params, alone.split, alone.step)["metrics"]
    assert list(metrics) == ["accuracy", "macro_f1", "matthews"]
    assert metrics["accuracy"]["value"] == results["validation"]["metrics"]["films/accuracy"]["value"]
    with pytest.raises(ValueError, match="evaluate.metric must be one of loss, accuracy, .*films/accuracy.*: got 'x/accuracy'"):
        jaxllm.fit(dataclasses.replace(made, run_dir=str(tmp_path / "x"), evaluate=EvaluateConfig(metric="x/accuracy")))


def test_noise_only_while_it_learns(folder, tmp_path):
    """The same first evaluation of a step of rate 0, another training loss; without noise nothing changes."""
    found = {}
    for alpha in (0.0, 5.0):
        made = recipe(
            folder, "reviews", tmp_path / str(alpha), model=CLASSES.headed(ENCODER), objective=CLASSES, steps=1,
            optimizer=OptimizerConfig(learning_rate=1e-12, weight_decay=0.0), loss=LossConfig(neftune=alpha),
        )  # fmt: skip
        jaxllm.fit(made)
        found[alpha] = [lines(made.run_dir, split)[0]["loss"] for split in ("train", "validation")]
    assert found[0.0][1] == pytest.approx(found[5.0][1], rel=1e-6)
    assert abs(found[0.0][0] - found[5.0][0]) > 1e-4


@pytest.mark.parametrize(
    ("label", "text", "said"),
    [("good", " ", r"t:1: a text must have at least one token: got ' '; leave it out")],
)
def test_bad_examples_are_named(label, text, said, tmp_path):
    rows = [("t:0", "the film", "bad"), ("t:1", text, label)]
    kinds = {"id": None, "text": None, "label": Label(("bad", "good"))}
    write_set("odd", {"train": rows}, tmp_path, description="", features=kinds)
    made = recipe(tmp_path, "odd", tmp_path / "run", model=CLASSES.headed(ENCODER), objective=CLASSES)
    made = dataclasses.replace(made, data=dataclasses.replace(made.data, validation_split=None))
    with pytest.raises(ValueError, match=said):
        jaxllm.fit(made)
