"""Writes tests/interchange/golden/image_processor.npz: what transformers' image processors make of pictures.

    python scripts/oracle/image_processor.py        # a Python with transformers and Pillow; torch is not needed

A case is a preprocessor_config.json, as folders of ViT and DeiT have it, and the pixels of each of three random pictures: a
wide, a high and a small one. Scaling is Pillow's: that by torchvision rounds differently.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from transformers import AutoImageProcessor

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "interchange" / "golden" / "image_processor.npz"
SIZES = ((20, 33), (31, 18), (9, 7))
COLORS = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
CASES: dict[str, dict[str, Any]] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "size": {"height": 12, "width": 12}, "resample": 2},
    "vit of old": {"feature_extractor_type": "ViTFeatureExtractor", "size": 12, "resample": 3, "do_normalize": True, **COLORS},
    "deit": {
        "image_processor_type": "DeiTImageProcessor",
        "size": {"height": 16, "width": 16},
        "crop_size": {"height": 12, "width": 12},
        **COLORS,
    },
    "deit of old": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 15, "crop_size": 12, "do_center_crop": True},
    "fast": {
        "image_processor_type": "ViTImageProcessorFast",
        "size": {"shortest_edge": 13},
        "do_center_crop": True,
        "crop_size": 12,
        "resample": 1,
        "do_convert_rgb": True,
        "device": None,
        "data_format": "channels_first",
        "rescale_factor": 0.00392156862745098,
    },
    "cut beyond the edges": {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": False,
        "do_center_crop": True,
        "crop_size": {"height": 12, "width": 12},
        "image_mean": 0.25,
        "image_std": 0.5,
    },
    "bytes": {"image_processor_type": "ViTImageProcessor", "size": [12, 12], "do_rescale": False, "do_normalize": False},
    "one factor": {"image_processor_type": "ViTImageProcessor", "size": 12, "rescale_factor": 0.007, "do_normalize": False},
}


def main() -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3), np.uint8) for size in SIZES]
    arrays: dict[str, Any] = {f"picture/{number}": picture for number, picture in enumerate(pictures)}
    for name, fields in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "preprocessor_config.json").write_text(json.dumps(fields))
            processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        found = [processor(PIL.Image.fromarray(picture), return_tensors="np")["pixel_values"][0] for picture in pictures]
        arrays |= {f"{name}/config": np.array(json.dumps(fields)), f"{name}/pixels": np.stack(found).astype(np.float32)}
    np.savez_compressed(GOLDEN, allow_pickle=False, **arrays)
    print(f"{GOLDEN.relative_to(ROOT)}: {GOLDEN.stat().st_size / 1e3:.0f} kB, {', '.join(CASES)}")


if __name__ == "__main__":
    main()
