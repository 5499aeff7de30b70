"""A small ViT trained with torch's own layers: its weights as safetensors, and its logits.

    python scripts/oracle/torch_vit.py WEIGHTS.pth IMAGES.npy OUT        # a Python with torch

WEIGHTS.pth is a state dict around nn.TransformerEncoder with that class's defaults, post-norm and ReLU, and packed in_proj.
IMAGES.npy holds normalized pixels, [images, height, width, channels]. OUT becomes a folder with model.safetensors and
logits.npy. The weights that this is for state no licence: keep what is written here out of anything published.
"""
# pyright: reportMissingImports=false

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

HEADS = 8
"""Not to be seen from the weights."""


class VisionTransformer(nn.Module):
    def __init__(self, weights: dict[str, torch.Tensor]):
        super().__init__()
        dim, channels, patch, _ = weights["patch_embed.proj.weight"].shape
        layers = 1 + max(int(name.split(".")[2]) for name in weights if name.startswith("transformer.layers."))
        layer = nn.TransformerEncoderLayer(
            dim, HEADS, weights["transformer.layers.0.linear1.weight"].shape[0], batch_first=True
        )
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(channels, dim, patch, patch)})
        self.cls_token = nn.Parameter(torch.zeros_like(weights["cls_token"]))
        self.pos_embed = nn.Parameter(torch.zeros_like(weights["pos_embed"]))
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.mlp_head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, len(weights["mlp_head.1.bias"])))
        self.load_state_dict(weights)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embed["proj"](images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(images), -1, -1), patches], dim=1) + self.pos_embed
        return self.mlp_head(self.transformer(x)[:, 0])


def main() -> None:
    source, images, out = map(Path, sys.argv[1:])
    weights = torch.load(source, map_location="cpu", weights_only=True)
    model = VisionTransformer(weights).eval()
    with torch.no_grad():
        batches = torch.from_numpy(np.load(images)).permute(0, 3, 1, 2).split(200)
        logits = torch.cat([model(batch) for batch in batches])
    out.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in weights.items()}, out / "model.safetensors")
    np.save(out / "logits.npy", logits.numpy())


if __name__ == "__main__":
    main()
