"""How is a pretrained model fitted to a task?

A method says what learns: `Full`, `LoRA` and others, one file each; `adapt(model, method)` is the model computing with it. A
task is an objective over labelled examples.
"""

from jaxllm.finetune.adalora import AdaLoRA
from jaxllm.finetune.adapted import adapt, begin_params, packs, unadapted
from jaxllm.finetune.bottleneck import Bottleneck
from jaxllm.finetune.budget import report
from jaxllm.finetune.full import BitFit, Freeze, Full
from jaxllm.finetune.ia3 import IA3
from jaxllm.finetune.lora import LoRA
from jaxllm.finetune.method import Method, adapted_loss, wrapped
from jaxllm.finetune.prefix import PrefixTuning
from jaxllm.finetune.prompt import PromptTuning
from jaxllm.finetune.ptuning import PTuning
from jaxllm.finetune.rates import learning_rate
from jaxllm.finetune.vera import VeRA

AnyMethod = Full | Freeze | BitFit | LoRA | AdaLoRA | IA3 | Bottleneck | VeRA | PrefixTuning | PromptTuning | PTuning

__all__ = [
    "IA3",
    "AdaLoRA",
    "AnyMethod",
    "BitFit",
    "Bottleneck",
    "Freeze",
    "Full",
    "LoRA",
    "Method",
    "PTuning",
    "PrefixTuning",
    "PromptTuning",
    "VeRA",
    "adapt",
    "adapted_loss",
    "begin_params",
    "learning_rate",
    "packs",
    "report",
    "unadapted",
    "wrapped",
]
