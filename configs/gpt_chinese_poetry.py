r"""A small GPT on Tang and Song poems, with its own byte-level BPE of 6,000 entries.

Reproduces  nothing: shows that the tokenizers read Chinese
Data        JSON files of chinese-poetry (https://github.com/chinese-poetry/chinese-poetry):
              jaxllm data build chinese_poetry poems/ --column paragraphs --exact-duplicates
Command     jaxllm train configs/gpt_chinese_poetry.py
Hardware    two CPU cores, shared with other work: 18 minutes
Result      scripts/benchmark/results/run--gpt_chinese_poetry--*.json: validation perplexity 225, 7.56 bits a character; all 446
            poems of the validation split come back the same from the BPE, and from bytes; a poem
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, TokenizerConfig
from jaxllm.inference import SamplingConfig
from jaxllm.models import TransformerConfig
from jaxllm.recipe import Recipe, SampleConfig
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig


def config() -> Recipe:
    return Recipe(
        name="gpt_chinese_poetry",
        steps=1500,
        batch_size=24,
        model=TransformerConfig(num_layers=4, num_heads=6, embed_dim=192, context_len=128, bias=False, dropout=0.2),
        data=DataConfig(
            dataset="chinese_poetry", seq_len=128, packing="fit", tokenizer=TokenizerConfig(kind="bpe", vocab_size=6000)
        ),
        optimizer=OptimizerConfig(learning_rate=2e-3, schedule=ScheduleConfig(kind="cosine", warmup_steps=200)),
        evaluate=EvaluateConfig(every=250),
        checkpoint=CheckpointConfig(every=250),
        sample=SampleConfig(prompt="春", sampling=SamplingConfig(max_tokens=100, temperature=0.8)),
    )
