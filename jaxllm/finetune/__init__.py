"""How is a pretrained model fitted to a task?

A method says what learns: `Full`, `LoRA` and others, one file each; `adapt(model, method)` is the model computing with it. A
task is an objective over labelled examples.
"""

from jaxllm.finetune.adapted import adapt, begin_params, unadapted
from jaxllm.finetune.full import BitFit, Freeze, Full
from jaxllm.finetune.lora import LoRA
from jaxllm.finetune.method import Method

AnyMethod = Full | Freeze | BitFit | LoRA

__all__ = ["AnyMethod", "BitFit", "Freeze", "Full", "LoRA", "Method", "adapt", "begin_params", "unadapted"]
