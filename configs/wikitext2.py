r"""A small GPT on WikiText-2, with its own BPE of 4,096 entries.

Reproduces  nothing: a baseline for word-level text. Published WikiText-2 figures are per word, on the full training split
Data        jaxllm data build wikitext2 --documents article --train wiki.train.txt --validation wiki.valid.txt \
              --test wiki.test.txt
Command     jaxllm train configs/wikitext2.py
Hardware    two CPU cores for a try, one GPU or TPU chip to train
Result      not run on the full training split
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.inference import SamplingConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, SampleConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="wikitext2",
        steps=3000,
        batch_size=32,
        model=TransformerConfig(
            num_layers=6, num_heads=6, embed_dim=384, context_len=256, norm="rms_norm", position="rotary", dropout=0.1
        ),
        data=DataConfig(dataset="wikitext2", seq_len=256, tokenizer=TokenizerConfig(kind="bpe", vocab_size=4096)),
        optimizer=OptimizerConfig(
            learning_rate=1e-3, schedule=ScheduleConfig(kind="wsd", warmup_steps=100, decay_steps=3000, final_fraction=0.0)
        ),
        evaluate=EvaluateConfig(every=250, patience=4),
        checkpoint=CheckpointConfig(every=250),
        sample=SampleConfig(prompt="The ", sampling=SamplingConfig(max_tokens=100, temperature=0.8)),
    )
