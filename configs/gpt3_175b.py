"""GPT-3 175B on a v5p-1024: four copies, each fully sharded over 128 chips, three sequences of 2,048 tokens a chip.

Reproduces  GPT-3's sizes and schedule (arXiv:2005.14165); its layers attend in turn to all tokens and to
            a sparse pattern that was not published, here all attend to all
Data        any large text, such as FineWeb-Edu as Parquet files:
              jaxllm data build webtext FOLDER --validation-fraction 0.0005 --test-fraction 0
            The tokenizer is GPT-2's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/gpt3_175b.py
Hardware    a v5p-1024 (512 chips, topology v5p:8x8x8); on two v5p-512 --mesh.replica 2 --mesh.data 2
Planned     for v5p:8x8x8 (record plan): 45.3 of 102.8 GB a chip; estimated step 23.09 s, MFU 62%
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
        name="gpt3_175b",
        steps=95_000,
        batch_size=1536,
        model=TransformerConfig(
            vocab_size=50257,
            num_layers=96,
            num_heads=96,
            embed_dim=12288,
            context_len=2048,
            compute_dtype="bfloat16",
            remat="block",
        ),
        data=DataConfig(
            dataset="webtext",
            seq_len=2048,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="gpt2"),
            num_workers=8,
        ),
        loss=LossConfig(chunk=512),
        optimizer=OptimizerConfig(
            learning_rate=6e-5,
            b2=0.95,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=120, final_fraction=0.1),
        ),
        mesh=MeshConfig(data=4, fsdp=128),
        evaluate=EvaluateConfig(every=1000, batches=20),
        checkpoint=CheckpointConfig(every=1000, keep_last=3),
    )
