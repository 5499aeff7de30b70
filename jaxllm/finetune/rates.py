"""How fast does each method learn best?

Peak learning rates of AdamW, for recipes that name none.
"""

from jaxllm.finetune.adalora import AdaLoRA
from jaxllm.finetune.bottleneck import Bottleneck
from jaxllm.finetune.full import BitFit, Freeze, Full
from jaxllm.finetune.ia3 import IA3
from jaxllm.finetune.lora import LoRA
from jaxllm.finetune.method import Method
from jaxllm.finetune.prefix import PrefixTuning
from jaxllm.finetune.prompt import PromptTuning
from jaxllm.finetune.ptuning import PTuning
from jaxllm.finetune.vera import VeRA

RATES: dict[type, float] = {
    Full: 1e-4,
    Freeze: 3e-3,
    BitFit: 1e-3,
    LoRA: 1e-3,
    AdaLoRA: 1e-2,
    Bottleneck: 1e-3,
    PrefixTuning: 1e-2,
    PromptTuning: 1e-2,
    PTuning: 3e-3,
    IA3: 1e-2,
    VeRA: 3e-2,
}
"""Of each method as it comes."""
PISSA, LORA_PLUS = 3e-4, 1e-4
"""Of LoRA whose matrices begin large, and of that in which one learns faster."""
PREFIX_NETWORK = 1e-3
"""Of a prefix that a network makes."""
PROMPT_RANDOM, PROMPT_TEXT = 3e-2, 3e-3
"""Of a prompt that begins by chance, and of one that begins as a text."""


def learning_rate(method: Method) -> float:
    """Chosen by the accuracy on 400 validation texts, one seed, of a model of 22 million parameters: the tuning of
    `scripts/benchmark/method_comparison.py minilm`, where LoRA and VeRA were on all linear layers. Of two that were as good it
    is the lower; of bottleneck adapters, P-tuning and IA3 it is a third of the best (less by 0.5 to 2.5 points, where an
    interval is 8 wide), for at the best SmolLM2-135M loses its language. Other models and data may want others: `jaxllm sweep`
    finds them."""
    if isinstance(method, LoRA) and (method.initialization == "pissa" or method.lora_plus_ratio is not None):
        return PISSA if method.lora_plus_ratio is None else LORA_PLUS
    if isinstance(method, Freeze) and method != Freeze():  # blocks may learn
        return RATES[Full]
    if isinstance(method, PrefixTuning) and method.projection:
        return PREFIX_NETWORK
    if isinstance(method, PromptTuning) and method.initialization != "sampled":
        return PROMPT_RANDOM if method.initialization == "random" else PROMPT_TEXT
    return RATES[type(method)]
