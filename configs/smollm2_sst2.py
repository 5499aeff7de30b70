r"""SmolLM2-135M-Instruct on 320 labelled texts of SST-2, by LoRA: is a piece of a film review positive or negative?

Reproduces  nothing exact; the recipe of the comparison of methods
Data        GLUE's SST-2, sentences and labels:
              jaxllm data build sst2_labels train.tsv --task classification --labels 0=negative 1=positive \
                --validation dev.tsv --test test.tsv
            (there the validation split is of pieces of sentences, as the training split, and the test split of sentences)
Command     jaxllm train configs/smollm2_sst2.py            (--pretrained FOLDER for a copy of the model on this machine)
            scripts/benchmark/method_comparison.py smollm2 runs it with every method, with 8 examples a step and 200 test
            texts; minilm as it is, with MiniLM in its place and 80 steps
Hardware    two CPU cores
Result      scripts/benchmark/results/method_comparison--smollm2--*.json, of MiniLM method_comparison--minilm--*.json
"""

from jaxllm.data import TaskDataConfig
from jaxllm.finetune import LoRA
from jaxllm.finetune.tasks import TextClassification
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="smollm2_sst2",
        steps=40,
        batch_size=16,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        method=LoRA(targets=("all-linear",)),
        data=TaskDataConfig(
            dataset="sst2_labels", seq_len=64, examples=320, validation_split="validation[:400]", test_split="test[:400]"
        ),
        objective=TextClassification(),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            b2=0.999,
            weight_decay=0.0,
            schedule=ScheduleConfig(kind="linear", warmup_steps=4, final_fraction=0.0),
        ),
        evaluate=EvaluateConfig(every=40, batch_size=32),
    )
