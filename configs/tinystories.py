"""A small Llama-style model on TinyStories, with its own BPE of 2,048 entries.

Reproduces  nothing exact: the architecture and data of the small models in arXiv:2305.07759
Data        jaxllm data build tinystories tinystories.txt --split-by characters --validation-fraction 0.05 --test-fraction 0
Command     jaxllm train configs/tinystories.py
Hardware    two CPU cores, about five minutes
Result      scripts/benchmark/results/run--tinystories--*.json, on the first 0.9 million characters of TinyStories
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.inference import SamplingConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, SampleConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="tinystories",
        steps=1500,
        batch_size=16,
        model=TransformerConfig(
            num_layers=4,
            num_heads=8,
            num_kv_heads=4,
            embed_dim=128,
            ffw_dim=344,
            context_len=256,
            norm="rms_norm",
            position="rotary",
            activation="swiglu",
            bias=False,
        ),
        data=DataConfig(
            dataset="tinystories",
            seq_len=128,
            test_split=None,
            tokenizer=TokenizerConfig(kind="bpe", vocab_size=2048),
            packing="concat",
        ),
        optimizer=OptimizerConfig(
            learning_rate=2e-3, schedule=ScheduleConfig(kind="cosine", warmup_steps=100, decay_steps=1500)
        ),
        evaluate=EvaluateConfig(every=250),
        checkpoint=CheckpointConfig(every=250),
        sample=SampleConfig(prompt="Once upon a time", sampling=SamplingConfig(max_tokens=150, temperature=0.8)),
    )
