"""A model fitted to a task: from a recipe to its metrics at the best checkpoint; resumed, loaded, and evaluated by command."""

import dataclasses
import importlib
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxllm
from jaxllm.checkpoint import CheckpointConfig
from jaxllm.cli import run
from jaxllm.data import TaskDataConfig, TokenizerConfig
from jaxllm.data.tfds_builder import Label, write_set
from jaxllm.finetune import LoRA
from jaxllm.finetune.tasks import TextClassification
from jaxllm.models import HeadConfig, TransformerConfig
from jaxllm.recipe.assemble import assemble
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.recipe.serialize import differences
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, Progress, read_metrics
from tests.finetune.tasks.conftest import sentence
from tests.recipe import tiny

TASK = TextClassification(read="mean", pooler=False)
MODEL = TransformerConfig(
    num_layers=1, num_heads=2, embed_dim=16, context_len=64, causal=False, init_std=0.1, head=HeadConfig(kind="none")
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Twelve steps, and the recipe."""
    folder = tmp_path_factory.mktemp("task")
    rows = [(f"t:{i}", text, ("bad", "good")[label]) for i in range(160) for text, label in [sentence(i)]]
    splits = {"train": rows[:100], "validation": rows[100:130], "test": rows[130:]}
    write_set("reviews", splits, folder, description="", features={"id": None, "text": None, "label": Label(("bad", "good"))})
    recipe = tiny.config(
        run_dir=str(folder / "run"),
        model=TASK.headed(MODEL),
        objective=TASK,
        data=TaskDataConfig(
            dataset="reviews", data_dir=str(folder), seq_len=32, tokenizer=TokenizerConfig(kind="wordpiece", vocab_size=300)
        ),
        optimizer=OptimizerConfig(learning_rate=2e-2, weight_decay=0.0, b2=0.99, clip_norm=None),
        evaluate=EvaluateConfig(every=3, batch_size=16, metric="macro_f1"),
        checkpoint=CheckpointConfig(every=4, keep_last=4),
    )
    jaxllm.fit(recipe)
    return recipe


def test_results_are_those_of_the_best_checkpoint(trained, capsys):
    results = json.loads((Path(trained.run_dir) / "results.json").read_text())
    records = [line for line in read_metrics(trained.run_dir) if line["split"] == "validation"]
    best = max(records, key=lambda line: (line["macro_f1"], line["step"]))
    assert results["validation"]["step"] == results["test"]["step"] == best["step"]
    found = results["validation"]["metrics"]
    assert found["macro_f1"]["value"] == best["macro_f1"] > 0.5 and found["accuracy"]["value"] == best["accuracy"]
    assert found["accuracy"]["low"] <= found["accuracy"]["value"] <= found["accuracy"]["high"]
    assert results["validation"]["examples"] == 30 and results["examples"] == 96
    assert len(results["sample"].splitlines()) == 5 and results["sample"].startswith("[")
    saved = json.loads((Path(trained.run_dir) / "recipe.json").read_text())
    assert saved["model"]["head"]["label_names"] == ["bad", "good"] and "best_metric" not in saved["checkpoint"]
    assert run(["evaluate", trained.run_dir, "--split", "test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == results["test"]["metrics"]
    assert run(["evaluate", trained.run_dir]) == 0
    assert f"accuracy {found['accuracy']['value']:.4f} (" in capsys.readouterr().out


def test_accumulated_and_resumed_on_a_mesh(trained, tmp_path):
    """The same losses in parts, on four devices, and with a break."""
    wanted = [line["loss"] for line in read_metrics(trained.run_dir) if line["split"] == "train"]
    other = dataclasses.replace(
        trained, run_dir=str(tmp_path / "run"), accumulate=2, mesh=MeshConfig(data=2, tensor=2), steps=7
    )
    optimizer = dataclasses.replace(other.optimizer, schedule=dataclasses.replace(other.optimizer.schedule, decay_steps=12))
    jaxllm.fit(dataclasses.replace(other, optimizer=optimizer))
    jaxllm.fit(dataclasses.replace(other, optimizer=optimizer, steps=12))
    found = [line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "train"]
    np.testing.assert_allclose(found, wanted, rtol=2e-4)


def test_fine_tuned_further(trained, tmp_path):
    """A run is a pretrained model, too; its head is taken where the labels are as many, and new where they are not."""
    recipe = dataclasses.replace(
        trained,
        run_dir=str(tmp_path / "lora"),
        pretrained=trained.run_dir,
        model=FromPretrained(),
        method=LoRA(rank=2),
        steps=3,
    )
    jaxllm.fit(recipe)
    m, base = jaxllm.load(tmp_path / "lora"), jaxllm.load(trained.run_dir)
    own = m.params["layers"]["attention"]["key"]["kernel"], base.params["layers"]["attention"]["key"]["kernel"]
    assert all(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, own), strict=True))
    first = [read_metrics(run_dir)[0]["loss"] for run_dir in (tmp_path / "lora", trained.run_dir)]
    assert first[0] < first[1] - 0.02  # of the same batch: it goes on from what the base has learnt


def test_unknown_metric(trained, tmp_path):
    recipe = dataclasses.replace(trained, run_dir=str(tmp_path / "run"), evaluate=EvaluateConfig(metric="bleu"))
    with pytest.raises(ValueError, match="evaluate.metric must be one of loss, accuracy, macro_f1, matthews: got 'bleu'"):
        jaxllm.fit(recipe)


def test_labels_must_be_those_of_the_data(trained, tmp_path):
    model = dataclasses.replace(trained.model, head=dataclasses.replace(trained.model.head, num_labels=3))
    with pytest.raises(ValueError, match="model.head.num_labels must be the number of .* labels: got 3, the data has 2"):
        jaxllm.fit(dataclasses.replace(trained, run_dir=str(tmp_path / "run"), model=model))


def test_the_checkpoint_that_is_kept_is_the_best_by_the_metric(trained, tmp_path, monkeypatch):
    """Though its loss is the highest: what the run keeps, and not only what is loaded of that."""
    f1 = {1: 0.9, 2: 0.2, 3: 0.3, 4: 0.4}
    room = importlib.import_module("jaxllm.recipe.fit")  # the package has a function of this name
    told = lambda state, _: {"loss": 5.0 - int(state.step), "macro_f1": f1[int(state.step)]}  # noqa: E731
    monkeypatch.setattr(room, "make_validate", lambda job: told)
    evaluate, kept = dataclasses.replace(trained.evaluate, every=1), CheckpointConfig(every=1, keep_last=1, keep_best=1)
    made = dataclasses.replace(trained, run_dir=str(tmp_path / "run"), steps=4, evaluate=evaluate, checkpoint=kept)
    jaxllm.fit(made)
    there = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()}
    assert there == {1, 4} and jaxllm.load(made.run_dir).step == 1


@pytest.mark.slow
def test_what_was_best_by_another_metric_is_forgotten(trained, tmp_path):
    """The best checkpoint goes by the new metric, and patience begins anew; a checkpoint that does not say is kept as it is."""
    made = dataclasses.replace(trained, run_dir=str(tmp_path / "run"), steps=6)
    jaxllm.fit(made)

    def saved(step):
        text = (tmp_path / "run" / "checkpoints" / str(step) / "manifest" / "manifest.json").read_text()
        return json.loads(text)["meta"]["progress"]

    assert saved(6)["metric"] == "macro_f1" and saved(6)["best"] is not None
    jaxllm.fit(dataclasses.replace(made, steps=7, evaluate=EvaluateConfig(every=7, batch_size=16)))
    assert saved(7)["metric"] == "loss" and saved(7)["best"] is None
    losses = {line["step"]: line["loss"] for line in read_metrics(tmp_path / "run") if line["split"] == "validation"}
    kept = {int(path.name) for path in (tmp_path / "run" / "checkpoints").iterdir() if path.name.isdigit()}
    assert jaxllm.load(str(tmp_path / "run")).step == min(kept & losses.keys(), key=lambda step: losses[step])
    before = Progress(best=0.5, evaluations_since_best=3)
    assert before.going_by("accuracy") == dataclasses.replace(before, metric="accuracy")
    assert before.going_by("accuracy").going_by("matthews") == Progress(metric="matthews")


def with_odd(trained, folder, split, text, **changes):
    """The recipe on a set of which the last text of a split is this one."""
    rows = [(f"t:{i}", words, ("bad", "good")[label]) for i in range(24) for words, label in [sentence(i)]]
    splits = {"train": rows[:16], "validation": rows[16:20], "test": rows[20:]}
    splits[split] = [*splits[split][:-1], ("t:odd", text, "good")]
    write_set("odd", splits, folder, description="", features={"id": None, "text": None, "label": Label(("bad", "good"))})
    data = dataclasses.replace(trained.data, dataset="odd", data_dir=str(folder), **changes)
    return dataclasses.replace(trained, run_dir=str(folder / "run"), data=data, steps=1)


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("text", "said"), [(" ", "t:odd: a text must have"), ("a film " * 40, "t:odd has more")])
def test_a_split_that_cannot_be_used_is_refused_before_the_first_step(split, text, said, trained, tmp_path):
    """No folder is left behind. A run may leave out its test split; with another validation split it is another run."""
    recipe = with_odd(trained, tmp_path, split, text, too_long="refuse")
    with pytest.raises(ValueError, match=said):
        jaxllm.fit(recipe)
    assert not (tmp_path / "run").exists()
    without = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **{f"{split}_split": None}))
    assert set(differences(recipe, without)) == ({"data.validation_split"} if split == "validation" else set())
    assert assemble(without).notes == []


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_cut_texts_of_each_split_are_told(split, trained, tmp_path):
    (told,) = assemble(with_odd(trained, tmp_path, split, "a film " * 40)).notes
    count = {"train": 16}.get(split, 4)
    assert told == f"{split}: 1 of {count} examples are longer than 32 tokens and cut"
