r"""A ViT that knows five classes of CIFAR-10 fitted to the five others.

Reproduces  nothing exact: does what was learned of airplanes, birds, cats, deer and ships help with automobiles, dogs, frogs,
            horses and trucks? 4,750 images of each five, and 1,000 to test
Data        class folders of images, train and test (Krizhevsky 2009):
              jaxllm data build cifar10_five train/{airplane,bird,cat,deer,ship} --images \
                --test test/{airplane,bird,cat,deer,ship} --validation-fraction 0.05
              jaxllm data build cifar10_other_five train/{automobile,dog,frog,horse,truck} --images \
                --test test/{automobile,dog,frog,horse,truck} --validation-fraction 0.05
Command     jaxllm train configs/vit_cifar10.py --data.dataset cifar10_five --steps 1000 \
              --optimizer.schedule.warmup-steps 100 --run-dir runs/vit_cifar10_five
            jaxllm train configs/vit_cifar10_finetune.py
            scripts/benchmark/method_comparison.py vit runs it with every method, and from nothing
Hardware    two CPU cores; 2.4 min of steps with other work on the machine, after the 1,000 of the base
Result      test accuracy 58.5 % (55.4 to 61.5) of five classes
            (scripts/benchmark/results/image_accuracy--vit_cifar10_finetune--*.json)
"""

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import ImageDataConfig
from jaxllm.finetune import LoRA
from jaxllm.recipe import Recipe
from jaxllm.training import EvaluateConfig, LossConfig, OptimizerConfig, ScheduleConfig
from jaxllm.training.objectives import ImageClassification


def config() -> Recipe:
    return Recipe(
        name="vit_cifar10_finetune",
        steps=150,
        batch_size=64,
        pretrained="runs/vit_cifar10_five",
        method=LoRA(rank=8, targets=("all-linear",)),
        data=ImageDataConfig(dataset="cifar10_other_five", image_size=32),
        objective=ImageClassification(crop_padding=4, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616)),
        loss=LossConfig(label_smoothing=0.1),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, b2=0.999, weight_decay=0.05, schedule=ScheduleConfig(kind="cosine", warmup_steps=15)
        ),
        evaluate=EvaluateConfig(every=75, batch_size=100),
        checkpoint=CheckpointConfig(every=150, keep_best=0),
    )
