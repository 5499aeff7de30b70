"""A character GPT on tiny Shakespeare, in nanoGPT's CPU setting: 4 layers, 4 heads, 128 wide, context 64, batch 12.

Reproduces  the validation loss of 1.88 after 2,000 steps that nanoGPT's README gives for this setting. Its learning
            rate is 1e-3, with which this recipe ends at 1.91 over the whole validation split (nanoGPT looks at 20 random
            batches of it); here the rate is 3e-3
Command     jaxllm train configs/shakespeare_char.py
Hardware    two CPU cores, about a minute
Result      scripts/benchmark/results/run--shakespeare_char--*.json; at nanoGPT's rate:
            scripts/benchmark/results/run_nanogpt_rate--shakespeare_char--*.json
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="shakespeare_char",
        steps=2000,
        batch_size=12,
        seed=1337,
        model=TransformerConfig(
            num_layers=4, num_heads=4, embed_dim=128, context_len=64, bias=False, norm_bias=False, activation="gelu"
        ),
        data=DataConfig(dataset="tiny_shakespeare", seq_len=64, test_split=None, tokenizer=TokenizerConfig(kind="characters")),
        optimizer=OptimizerConfig(
            learning_rate=3e-3,
            b2=0.99,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=100, decay_steps=2000, final_fraction=0.1),
        ),
        evaluate=EvaluateConfig(every=250, batch_size=120),
        checkpoint=CheckpointConfig(every=250),
    )
