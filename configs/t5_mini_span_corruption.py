r"""A small T5: span corruption on books, Wikipedia and web text.

Reproduces  nothing exact: T5 v1.1's architecture (arXiv:1910.10683, arXiv:2002.05202) at a size that trains on a laptop
Data        the set `bert_text` of configs/bert_mini.py
Command     jaxllm train configs/t5_mini_span_corruption.py
Hardware    two CPU cores, shared with other work: 23 minutes
Result      scripts/benchmark/results/{run,span_filling}--t5_mini_span_corruption--*.json: 4.71 nats a token of the spans on
            WikiText-2 test; in what it fills in, punctuation and frequent words, there is little of the context yet
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import SpanCorruption


def config() -> Recipe:
    stack = dict(
        num_layers=4,
        num_heads=4,
        embed_dim=256,
        ffw_dim=512,
        context_len=128,
        norm="rms_norm",
        position="relative",
        activation="geglu_tanh",
        bias=False,
    )
    return Recipe(
        name="t5_mini_span_corruption",
        steps=1100,
        batch_size=32,
        model=EncoderDecoderConfig(
            encoder=TransformerConfig(causal=False, head=HeadConfig(kind="none"), **stack),  # type: ignore[arg-type]
            decoder=TransformerConfig(cross_attention=True, **stack),  # type: ignore[arg-type]
        ),
        data=DataConfig(dataset="bert_text", seq_len=128, tokenizer=TokenizerConfig(kind="bpe", vocab_size=8192)),
        objective=SpanCorruption(),
        optimizer=OptimizerConfig(learning_rate=1e-3, schedule=ScheduleConfig(kind="cosine", warmup_steps=150)),
        evaluate=EvaluateConfig(every=250),
        checkpoint=CheckpointConfig(every=250),
    )
