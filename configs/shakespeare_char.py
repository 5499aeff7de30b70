"""A character GPT on tiny Shakespeare: nanoGPT's CPU setting (config/train_shakespeare_char.py with the README's flags).

Command   jaxllm train configs/shakespeare_char.py
Hardware  two CPU cores
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
            learning_rate=1e-3,
            b2=0.99,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=100, decay_steps=2000, final_fraction=0.1),
        ),
        evaluate=EvaluateConfig(every=250, batch_size=120),
        checkpoint=CheckpointConfig(every=250),
    )
