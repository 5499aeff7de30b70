"""The larger character GPT on tiny Shakespeare: nanoGPT's config/train_shakespeare_char.py, 10.7 M parameters.

Reproduces  nanoGPT's 1.4697 best validation loss, after about 3 minutes on one A100 (its README)
Command     jaxllm train configs/shakespeare_char_gpu.py
Hardware    one GPU or TPU chip
Result      not run here yet: stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="shakespeare_char_gpu",
        steps=5000,
        batch_size=64,
        seed=1337,
        model=TransformerConfig(
            num_layers=6,
            num_heads=6,
            embed_dim=384,
            context_len=256,
            bias=False,
            norm_bias=False,
            activation="gelu",
            dropout=0.2,
            compute_dtype="bfloat16",
        ),
        data=DataConfig(dataset="tiny_shakespeare", seq_len=256, test_split=None, tokenizer=TokenizerConfig(kind="characters")),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            b2=0.99,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=100, decay_steps=5000, final_fraction=0.1),
        ),
        evaluate=EvaluateConfig(every=250),
        checkpoint=CheckpointConfig(every=250),
    )
