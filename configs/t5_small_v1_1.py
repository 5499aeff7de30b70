"""T5 v1.1 small with the paper's settings: span corruption, 77 M parameters, a million steps of 2,048 rows of 512 tokens.

Reproduces  aims at T5 v1.1 small (arXiv:1910.10683; gated GELU as in arXiv:2002.05202; no dropout in pretraining)
Data        C4, the TFDS set `c4/en`, prepared where it can be downloaded, or any text built by `jaxllm data build`
            The tokenizer is T5's published one: --data.tokenizer.path FOLDER_WITH_TOKENIZER_JSON
Command     jaxllm train configs/t5_small_v1_1.py
Hardware    a guess: a v4-32 for some days; with less memory, more --accumulate
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import SpanCorruption


def config() -> Recipe:
    stack = dict(
        vocab_size=32128,
        num_layers=8,
        num_heads=6,
        embed_dim=512,
        head_dim=64,
        ffw_dim=1024,
        context_len=512,
        norm="rms_norm",
        norm_epsilon=1e-6,
        position="relative",
        attention_scale=1.0,
        activation="geglu_tanh",
        bias=False,
        tie_embeddings=False,
        init_std=0.05,
        compute_dtype="bfloat16",
        remat="dots",
    )
    return Recipe(
        name="t5_small_v1_1",
        steps=1_000_000,
        batch_size=2048,
        accumulate=8,
        model=EncoderDecoderConfig(
            encoder=TransformerConfig(causal=False, head=HeadConfig(kind="none"), **stack),  # type: ignore[arg-type]
            decoder=TransformerConfig(cross_attention=True, **stack),  # type: ignore[arg-type]
            start_id=0,
        ),
        data=DataConfig(
            dataset="c4/en",
            seq_len=512,
            test_split=None,
            tokenizer=TokenizerConfig(kind="pretrained", path="t5-v1_1-small"),
            num_workers=8,
        ),
        objective=SpanCorruption(),
        loss=LossConfig(z_loss=1e-4),
        optimizer=OptimizerConfig(
            name="adafactor", learning_rate=1e-2, schedule=ScheduleConfig(kind="cosine", warmup_steps=10_000), weight_decay=0.0
        ),
        evaluate=EvaluateConfig(every=10_000, batches=50),
        checkpoint=CheckpointConfig(every=5000, keep_last=3),
    )
