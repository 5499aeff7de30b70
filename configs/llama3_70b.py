"""Llama 3.1 70B on a v6e-256: fully sharded, one sequence of 8,192 tokens a chip.

Reproduces  Llama 3.1's architecture (arXiv:2407.21783), whose first batches held 4 M tokens: --batch-size 512 --accumulate 2
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is Llama 3's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/llama3_70b.py
Hardware    a v6e-256 (topology v6e:16x16)
Planned     for v6e:16x16 (record plan): 23.6 of 33.5 GB a chip; estimated step 11.11 s, MFU 39%
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import RopeScaling, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.sharding import MeshConfig
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="llama3_70b",
        steps=1_200_000,
        batch_size=256,
        model=TransformerConfig(
            vocab_size=128256,
            num_layers=80,
            num_heads=64,
            num_kv_heads=8,
            embed_dim=8192,
            ffw_dim=28672,
            context_len=131072,
            norm="rms_norm",
            position="rotary",
            rope_theta=500_000.0,
            rope_scaling=RopeScaling(
                kind="llama3", factor=8.0, original_context_len=8192, low_frequency_factor=1.0, high_frequency_factor=4.0
            ),
            activation="swiglu",
            bias=False,
            tie_embeddings=False,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=8192,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="llama-3.1-70b"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=1024),
        optimizer=OptimizerConfig(
            learning_rate=1.5e-4,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=8000, final_fraction=0.1),
        ),
        mesh=MeshConfig(data=1, fsdp=256),
        evaluate=EvaluateConfig(every=1000, batches=20),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
