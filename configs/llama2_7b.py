"""Llama 2 7B on a v5e-16: fully sharded, one sequence of 2,048 tokens a chip.

Reproduces  Llama 2's architecture (arXiv:2307.09288); its batch of 4 M tokens is --batch-size 2048 --accumulate 128, and its
            context --data.seq-len 4096
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is Llama 2's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/llama2_7b.py
Hardware    a v5e-16 (topology v5e:4x4); on v4, v5p and v6e slices of 8 chips and more, too
Planned     for v5e:4x4 (record plan): 8.0 of 16.9 GB a chip; estimated step 0.92 s, MFU 48%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="llama2_7b",
        steps=500_000,
        batch_size=16,
        model=TransformerConfig(
            vocab_size=32000,
            num_layers=32,
            num_heads=32,
            embed_dim=4096,
            ffw_dim=11008,
            context_len=4096,
            norm="rms_norm",
            position="rotary",
            activation="swiglu",
            bias=False,
            tie_embeddings=False,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=2048,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="llama-2-7b"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=2048),
        optimizer=OptimizerConfig(
            learning_rate=3e-4,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=2000, final_fraction=0.1),
        ),
        mesh=MeshConfig(data=1, fsdp=16),
        evaluate=EvaluateConfig(every=1000, batches=20),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
