r"""A Llama-style model on TinyStories, with its own BPE of 2,048 entries: rotary positions, RMSNorm, SwiGLU, grouped queries.

Reproduces  nothing exact: the kind of model in arXiv:2305.07759 on the first 0.9 million characters of its data
Data        jaxllm data build tinystories tiny_stories.txt --split-by characters
Command     jaxllm train configs/llama_tinystories.py
Hardware    two CPU cores, shared with other work: 14 minutes
Result      scripts/benchmark/results/run--llama_tinystories--*.json: validation perplexity 16.9, 1.20 bits a byte, and a story
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.inference import SamplingConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, SampleConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="llama_tinystories",
        steps=1500,
        batch_size=16,
        model=TransformerConfig(
            num_layers=6,
            num_heads=8,
            num_kv_heads=4,
            embed_dim=192,
            ffw_dim=512,
            context_len=256,
            norm="rms_norm",
            position="rotary",
            activation="swiglu",
            bias=False,
            dropout=0.2,
        ),
        data=DataConfig(dataset="tinystories", seq_len=128, tokenizer=TokenizerConfig(kind="bpe", vocab_size=2048)),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule=ScheduleConfig(kind="cosine", warmup_steps=200)),
        evaluate=EvaluateConfig(every=250),
        checkpoint=CheckpointConfig(every=250),
        sample=SampleConfig(prompt="Once upon a time", sampling=SamplingConfig(max_tokens=200, temperature=0.8)),
    )
