"""Does a ViT with another library's odd choices, post-norm and ReLU, compute the same here? Compares logits and accuracy.

python scripts/benchmark/torch_vit.py vit_cifar10.pth cifar10_subset/test.tar.gz --oracle PYTHON  # one with torch

The weights (smmk47/CIFAR10-Classification) state no licence: they are for this check only.
"""

import argparse
import dataclasses
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from record import write_named_record

from jaxllm.hardware import set_up
from jaxllm.interchange import Family, Tensor, load_params, open_tensors
from jaxllm.interchange.rows import from_heads, linear, norm
from jaxllm.models import TransformerConfig, VisionConfig, VisionTransformer, abstract_params

MEAN, STD = np.array([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]], np.float32)
PUBLISHED_ACCURACY = 0.703
"""Of these weights on this subset, by NumPy."""
WITHIN = 1e-3
CONFIG = VisionConfig(
    image_size=32,
    patch_size=4,
    num_labels=10,
    encoder=TransformerConfig(
        num_layers=6,
        embed_dim=128,
        num_heads=8,
        ffw_dim=256,
        causal=False,
        position="none",
        activation="relu",
        norm_placement="post",
        final_norm=True,
    ),
)


def tensors(config: VisionConfig) -> list[Tensor]:
    """The key map of torch's TransformerEncoder and what is around it."""
    block, layer = "transformer.layers.{layer}", "layers"
    kernels, biases = (
        tuple(f"{layer}/attention/{part}/{leaf}" for part in ("query", "key", "value")) for leaf in ("kernel", "bias")
    )
    return [
        Tensor("cls_token", "class_token", "1 1 D -> D"),
        Tensor("pos_embed", "position", "1 T D -> T D"),
        *linear("patch_embed.proj", "patch", "D C 4 4 -> (4 4 C) D"),
        Tensor(f"{block}.self_attn.in_proj_weight", kernels, "(P N H) D -> P D N H"),
        Tensor(f"{block}.self_attn.in_proj_bias", biases, "(P N H) -> P N H"),
        *from_heads(f"{block}.self_attn.out_proj", f"{layer}/attention/output"),
        *norm(f"{block}.norm1", f"{layer}/attention_norm"),
        *linear(f"{block}.linear1", f"{layer}/ffw/up"),
        *linear(f"{block}.linear2", f"{layer}/ffw/down"),
        *norm(f"{block}.norm2", f"{layer}/ffw_norm"),
        *norm("mlp_head.0", "final_norm"),
        *linear("mlp_head.1", "classifier"),
    ]


FAMILY = Family(
    architectures=("torch.nn.TransformerEncoder",),
    read_config=lambda reader: CONFIG,
    write_config=lambda config: {},
    tensors=tensors,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("weights", type=Path, help="the state dict")
    parser.add_argument("images", type=Path, help="an archive of class folders of JPEG files")
    parser.add_argument("--oracle", required=True, help="a Python with torch")
    options = parser.parse_args()
    set_up()

    images, labels = read_images(options.images)
    with tempfile.TemporaryDirectory() as temporary:
        np.save(f"{temporary}/images.npy", images)
        script = Path(__file__).parents[1] / "oracle" / "torch_vit.py"
        command = [options.oracle, str(script), str(options.weights), f"{temporary}/images.npy", f"{temporary}/out"]
        subprocess.run(command, check=True, capture_output=True)
        theirs = np.load(f"{temporary}/out/logits.npy")
        model = VisionTransformer(CONFIG)
        params = load_params(open_tensors(Path(temporary, "out")), FAMILY, CONFIG, abstract_params(model)[0])
    forward = jax.jit(lambda params, images: model.apply({"params": params}, images).logits)  # type: ignore[union-attr]
    ours = np.concatenate([forward(params, batch) for batch in np.split(images, len(images) // 200)])

    results = {
        "images": len(images),
        "accuracy": float(np.mean(ours.argmax(-1) == labels)),
        "torch_accuracy": float(np.mean(theirs.argmax(-1) == labels)),
        "published_accuracy": PUBLISHED_ACCURACY,
        "largest_logit_difference": float(np.abs(ours - theirs).max()),
        "largest_logit": float(np.abs(theirs).max()),
    }
    print(json.dumps(results, indent=1))
    if results["largest_logit_difference"] > WITHIN or abs(results["accuracy"] - PUBLISHED_ACCURACY) > 1e-3:
        raise SystemExit(f"logits must equal torch's within {WITHIN}, and accuracy must be {PUBLISHED_ACCURACY}")
    notes = "Float32, against torch's nn.TransformerEncoder with the same weights; the whole test split of cifar10_subset."
    print(write_named_record("torch_vit", "vit_cifar10_published", dataclasses.asdict(CONFIG), results, notes))


def read_images(archive: Path) -> tuple[np.ndarray, np.ndarray]:
    """Normalized pixels, and labels: classes by alphabet."""
    with tarfile.open(archive) as tar:
        files = sorted((member for member in tar if member.isfile()), key=lambda member: member.name)
        names = [Path(file.name).parent.name for file in files]
        pixels = [np.asarray(Image.open(io.BytesIO(tar.extractfile(file).read())).convert("RGB")) for file in files]  # type: ignore[union-attr]
    images = (np.stack(pixels).astype(np.float32) / 255 - MEAN) / STD
    classes = sorted(set(names))
    return images, np.array([classes.index(name) for name in names])


if __name__ == "__main__":
    main()
