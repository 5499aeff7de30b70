"""Plans of fine-tuning: of a pretrained model, with a method, on labelled examples."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from jaxllm.cli.overrides import override
from jaxllm.data import TaskDataConfig
from jaxllm.data.tfds_builder import Label, write_set
from jaxllm.finetune import Full, LoRA
from jaxllm.finetune.tasks import PreferenceTuning, TextClassification, TextToText
from jaxllm.models import num_params
from jaxllm.plan import make_plan, search
from jaxllm.plan.compile import known_recipe
from jaxllm.recipe import Recipe
from jaxllm.recipe.program import Program
from jaxllm.sharding import MeshConfig, make_mesh

BASES = Path(__file__).parents[1] / "finetune" / "golden" / "peft" / "base"
pytestmark = pytest.mark.filterwarnings("ignore:.*no tokenizer")


def recipe(base: str, dataset: str = "none", seq_len: int = 16, **changes: Any) -> Recipe:
    data = TaskDataConfig(dataset=dataset, seq_len=seq_len, data_dir=changes.pop("data_dir", None))
    return Recipe(**dict(name="fit", steps=10, batch_size=4, pretrained=str(BASES / base), data=data) | changes)


def program(made: Recipe) -> Program:
    known = known_recipe(made)
    return Program(known, make_mesh(MeshConfig(data=1), 4))


def test_gradients_and_moments_are_of_what_learns(two_cores):
    plans = [
        make_plan(recipe("llama", objective=PreferenceTuning(), method=method, mesh=MeshConfig(data=1)))
        for method in (Full(), LoRA(rank=2))
    ]
    full, lora = (plan.memory for plan in plans)
    assert full.gradients == full.parameters and full.optimizer > 2 * full.parameters - 100
    assert lora.parameters > full.parameters and lora.gradients < lora.parameters / 3 and lora.optimizer < lora.parameters
    assert plans[0].parameters == num_params(program(recipe("llama", objective=PreferenceTuning())).abstract.params)
    assert plans[0].tokens_per_step == 4 * 2 * 16  # two answers a pair, of rows as long as they may be


def test_an_encoder_decoder_has_rows_of_both_texts():
    made = program(recipe("t5", objective=TextToText(target_len=8), method=LoRA(rank=2, targets=("all-linear",))))
    shapes = {name: leaf.shape for name, leaf in made.abstract_batch.items()}
    assert shapes["tokens"] == (4, 16) and shapes["decoder_tokens"] == shapes["decoder_loss_weights"] == (4, 8)
    made.lower_step()


def test_labels_come_from_the_data(tmp_path):
    shutil.copytree(BASES / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join("[PAD] [UNK] [CLS] [SEP] [MASK] a b c d".split()))
    made = recipe("bert", "reviews", objective=TextClassification(), data_dir=str(tmp_path), pretrained=str(tmp_path / "bert"))
    with pytest.raises(ValueError, match="model.head.num_labels must be known to plan without the data .the data was looked"):
        known_recipe(made)
    rows = [("t:0", "a b", "bad"), ("t:1", "c d", "fair"), ("t:2", "c", "good")]
    kinds = {"id": None, "text": None, "label": Label(("bad", "fair", "good"))}
    write_set("reviews", {"train": rows, "validation": rows}, tmp_path, description="", features=kinds)
    assert known_recipe(made).model_config.head.num_labels == 3  # type: ignore[union-attr]


@pytest.mark.slow
def test_layouts_are_searched(two_cores):
    made = recipe("t5", objective=TextToText(), method=LoRA(rank=2, targets=("query",)), batch_size=8)
    result = search(made, compiled=1)
    assert result.found[0].speed > 0 and result.found[0].plan is not None
    options = override(made, result.found[0].overrides.split())
    assert options.mesh.data == result.found[0].plan.mesh.get("data", 1)
