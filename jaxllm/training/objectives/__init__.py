"""What does a model learn to do?

An objective says how a row of the data becomes an example of fixed shape, on the host and as a pure function of the seed
and the global position, and what is minimized over a batch of them. One file an objective; `objective` says what each of
them offers. To see one, ask for its examples:

    data = open_data(DataConfig(dataset="tiny_shakespeare", seq_len=64), seed=0)
    MaskedLM().rows(data, model_config, "train", seed=0).rows(np.arange(4))["targets"].shape  # (4, 64)
"""

from jaxllm.training.objectives.causal_lm import CausalLM
from jaxllm.training.objectives.denoising import Denoising
from jaxllm.training.objectives.image_classification import ImageClassification
from jaxllm.training.objectives.masked_lm import MaskedLM
from jaxllm.training.objectives.objective import Field, Objective, Reports
from jaxllm.training.objectives.prefix_lm import PrefixLM
from jaxllm.training.objectives.sequence_to_sequence import SequenceToSequence
from jaxllm.training.objectives.span_corruption import SpanCorruption

AnyObjective = CausalLM | MaskedLM | PrefixLM | SpanCorruption | Denoising | SequenceToSequence | ImageClassification

__all__ = [
    "AnyObjective",
    "CausalLM",
    "Denoising",
    "Field",
    "ImageClassification",
    "MaskedLM",
    "Objective",
    "PrefixLM",
    "Reports",
    "SequenceToSequence",
    "SpanCorruption",
]
