"""ViT-S/16 on ImageNet, 90 epochs.

Reproduces  aims at the 76.5 % of "Better plain ViT baselines" (arXiv:2205.01580) after 90 epochs; below it, since images here
            are cut with a border instead of anew at every scale, and there is no RandAugment
Data        ImageNet as class folders, or in their archives:
              jaxllm data build imagenet train/ --images --validation val/
            Decoded once to 224 pixels, the images take 190 GB of the cache folder
Command     jaxllm train configs/vit_s16.py
Hardware    a guess: seven hours on a v3-8, as in the paper
Result      not run: no accelerator of that size yet; stepped at tiny size in the tests only
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import ImageDataConfig
from jaxllm.models import TransformerConfig, VisionConfig
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import ImageClassification


def config() -> Recipe:
    return Recipe(
        name="vit_s16",
        steps=112_603,  # 90 epochs of 1,281,167 images
        batch_size=1024,
        model=VisionConfig(
            image_size=224,
            patch_size=16,
            encoder=TransformerConfig(
                causal=False,
                position="none",
                num_layers=12,
                num_heads=6,
                embed_dim=384,
                context_len=197,
                activation="gelu",
                compute_dtype="bfloat16",
            ),
        ),
        data=ImageDataConfig(dataset="imagenet", image_size=224, test_split=None, num_workers=8),
        objective=ImageClassification(crop_padding=28, mixup=0.2),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            b2=0.999,
            weight_decay=0.1,
            schedule=ScheduleConfig(kind="cosine", warmup_steps=10_000, final_fraction=0.0),
        ),
        evaluate=EvaluateConfig(every=5000),
        checkpoint=CheckpointConfig(every=5000, keep_last=3),
    )
