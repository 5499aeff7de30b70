r"""SmolLM2-135M-Instruct tuned by LoRA to answer as a set of 899 Alpaca-style conversations does.

Reproduces  nothing exact
Data        data/alpaca_en_demo.json of hiyouga/LLaMA-Factory:
              jaxllm data build alpaca_chat alpaca_en_demo.json --task chat --validation-fraction 0.1 --test-fraction 0
Command     jaxllm train configs/smollm2_alpaca_lora.py     (--pretrained FOLDER for a copy of the model on this machine)
Hardware    two CPU cores, 2.6 GB of memory; 48 min of steps with other work on the machine
Result      perplexity of the validation answers 4.53 (4.19 to 4.93), before 5.19 (4.78 to 5.67); loss of a plain text 3.048,
            before 3.156 (scripts/benchmark/results/instruction_tuning--smollm2_alpaca_lora--*.json)
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import TaskDataConfig
from jaxllm.finetune import LoRA
from jaxllm.finetune.tasks import InstructionTuning
from jaxllm.recipe import Recipe
from jaxllm.recipe.recipe import FromPretrained
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="smollm2_alpaca_lora",
        steps=100,
        batch_size=8,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        model=FromPretrained(remat="block"),
        method=LoRA(rank=16, alpha=32.0, targets=("all-linear",)),
        data=TaskDataConfig(dataset="alpaca_chat", seq_len=256),
        objective=InstructionTuning(),
        loss=LossConfig(chunk=64),
        optimizer=OptimizerConfig(
            learning_rate=5e-4, b2=0.999, weight_decay=0.0, schedule=ScheduleConfig(kind="cosine", warmup_steps=5)
        ),
        evaluate=EvaluateConfig(every=25, batches=4, batch_size=8),
        checkpoint=CheckpointConfig(every=10),
    )
