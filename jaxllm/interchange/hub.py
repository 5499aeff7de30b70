"""A name -> a local folder: one that is there, or a snapshot from the Hugging Face hub or its cache."""

import difflib
import os
import re
from pathlib import Path

FILES = ("*.json", "model*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja")
"""Config, weights, tokenizer and chat template; never pickles."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def resolve(name_or_path: str | Path, *, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of a published model; a folder that exists wins over a name on the hub.

        resolve("runs/exported")
        resolve("HuggingFaceTB/SmolLM2-135M-Instruct")      # downloaded once, then from the cache; HF_HUB_OFFLINE=1 never asks

    Args:
      revision: branch, tag or commit on the hub. By default its main branch.
      cache_dir: where downloads are kept. By default where huggingface_hub keeps them (HF_HOME).

    Raises:
      FileNotFoundError: neither a folder nor a plausible name, or a name that cannot be had.
    """
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    name = str(name_or_path)
    if path.exists():
        raise FileNotFoundError(f"{path} is a file: name the folder of a published model, which holds config.json")
    if not _NAME.fullmatch(name) or ".." in name:
        raise FileNotFoundError(f"there is no folder {name}, and it is not a name on the hub (owner/model){_nearest(path)}")
    return _snapshot(name, path, revision, cache_dir)


def _snapshot(name: str, path: Path, revision: str | None, cache_dir: Path | None) -> Path:
    from huggingface_hub import errors, snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, allow_patterns=list(FILES)))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.GatedRepoError) as error:
        raise FileNotFoundError(
            f"there is no folder {name}, and the hub has no model {name} that you may read ({type(error).__name__}): check the "
            f"name, or log in with `hf auth login` if it is a gated one{_nearest(path)}"
        ) from error
    except (OSError, errors.HfHubHTTPError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")
        reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
        raise FileNotFoundError(
            f"there is no folder {name}, no model of that name in the hub's cache, and {reason}: download it where there is a "
            f"connection (`hf download {name}`) and copy it here{_nearest(path)}"
        ) from error
    if not any(folder.glob("model*.safetensors")):
        raise FileNotFoundError(
            f"the hub's {name} has no weights as model.safetensors: a pickle such as pytorch_model.bin may run any code and is "
            "not read; load it once with transformers where you trust it, and save it again with save_pretrained"
        )
    return folder


def _nearest(path: Path) -> str:
    """The folders whose names are like this one's, as the end of a sentence."""
    try:
        there = {str(folder) for folder in path.parent.iterdir() if folder.is_dir()}
    except OSError:
        return ""
    near = difflib.get_close_matches(str(path), there, n=3)
    return f"; folders with names like it: {', '.join(near)}" if near else ""
