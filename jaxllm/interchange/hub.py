"""A name -> a local folder: one that is there, or a snapshot from the Hugging Face hub or its cache."""

import difflib
import errno
import os
import re
from pathlib import Path
from typing import Any

FILES = ("*.json", "model*.safetensors", "*.txt", "*.model", "*.spm", "*.jinja")
"""Config, weights, tokenizer and chat template; never pickles."""
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
_XET = re.compile(
    r"^(task|data processing|file reconstruction|cas[\w ]*|network|data integrity|configuration|internal|runtime|i/?o) error: |"
    + _OS_ERROR.pattern,
    re.IGNORECASE,
)
"""How hf_xet says that a transfer failed, whatever the reason; these are plain RuntimeErrors."""


def resolve(name_or_path: str | Path, *, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of a published model; a folder that exists wins over a name on the hub.

        resolve("runs/exported")
        resolve("HuggingFaceTB/SmolLM2-135M-Instruct")      # downloaded once, then from the cache; HF_HUB_OFFLINE=1 never asks

    Args:
      revision: branch, tag or commit on the hub. By default its main branch.
      cache_dir: where downloads are kept. By default where huggingface_hub keeps them (HF_HOME).

    Raises:
      FileNotFoundError: neither a folder nor a plausible name, or a name that cannot be had: not there, gated, not in the
        cache while offline; the message says which.
      OSError: a full disk, or a cache that may not be written.
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

    client_error: Any = errors.HfHubHTTPError.__mro__[1]  # of the HTTP client, which is not the same in every version
    known = OSError, client_error, errors.HFValidationError, errors.EntryNotFoundError, errors.XetDownloadError
    try:
        folder = Path(snapshot_download(name, revision=revision, cache_dir=cache_dir, allow_patterns=list(FILES)))
    except (*known, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not (type(error) is RuntimeError and _XET.search(str(error))):
            raise
        raise _explained(error, name, path, revision) from error
    if not any(folder.glob("model*.safetensors")):
        raise FileNotFoundError(
            f"the hub's {name} has no weights as model.safetensors: a pickle such as pytorch_model.bin may run any code and is "
            "not read; load it once with transformers where you trust it, and save it again with save_pretrained"
        )
    return folder


def _explained(error: Exception, name: str, path: Path, revision: str | None) -> OSError:
    """An error that says what went wrong and what to do."""
    from huggingface_hub import errors

    if _of_transfer(error):
        return _transfer(error, name)
    absent, status = f"there is no folder {name}", _status(error)
    unreached = errors.LocalEntryNotFoundError | errors.FileMetadataError | ConnectionError | TimeoutError
    if isinstance(error, errors.HFValidationError):
        return FileNotFoundError(f"{absent}, and it is not a name on the hub: {error}{_nearest(path)}")
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/{name}"
        message = f"the hub's {name} is gated: accept its terms at {page}, then log in with `hf auth login`"
    elif isinstance(error, errors.RevisionNotFoundError):
        message = f"the hub's {name} has no revision {revision}: name a branch, tag or commit that it has, or leave it out"
    elif isinstance(error, errors.DisabledRepoError):
        message = f"the hub's {name} was disabled there: take another model, or a copy of it"
    elif isinstance(error, errors.RepositoryNotFoundError) or status == 401:
        message = (
            f"{absent}, and the hub has no model of that name, or a private one: check the name, or log in with "
            f"`hf auth login`{_nearest(path)}"
        )
    elif isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        message = f"the hub's {name} lists {_file(error)} and does not have it: try again later, or name another revision"
    elif status == 403:
        message = f"the hub's {name} may not be read with your token: ask its owner, or log in with another by `hf auth login`"
    elif status is not None:
        cached = isinstance(error, errors.LocalEntryNotFoundError)
        kept = "nothing" if revision is None else f"no revision {revision}"
        missing = f", and its cache has {kept} of it" if cached else ""
        advice = "try again later, or copy its folder here"
        if status == 404:
            advice = "check the name and, where HF_ENDPOINT is set, that it is a hub's"
        message = f"the hub answered {status} for {name}{missing}: {advice}"
    elif isinstance(error, OSError) and not isinstance(error, unreached):
        return _of_the_disk(error, name)
    else:
        message = _unreached(error, name, revision) + _nearest(path)
    return FileNotFoundError(message)


def _status(error: BaseException) -> int | None:
    """What the hub answered, now or in the error behind this one; None where it did not answer."""
    found = getattr(getattr(error, "response", None), "status_code", None)
    return _status(error.__cause__) if found is None and error.__cause__ is not None else found


def _file(error: BaseException) -> str:
    """The file that an answer of the hub is about."""
    address = str(getattr(getattr(error, "response", None), "url", ""))
    return address.partition("/resolve/")[2].partition("?")[0].partition("/")[2] or "a file"


def _of_transfer(error: Exception) -> bool:
    """Whether the hub's storage, which holds the large files, is what failed."""
    from huggingface_hub import errors

    module = type(error).__module__.partition(".")[0]
    return module == "hf_xet" or isinstance(error, errors.XetDownloadError | RuntimeError)


def _transfer(error: Exception, name: str) -> OSError:
    """What hf_xet says is one long line; of trouble with the disk it only has the number."""
    said = next(iter(str(error).splitlines()), "") or type(error).__name__
    number = _OS_ERROR.search(said)
    if number is not None and int(number[1]) in _DISK:
        return _of_the_disk(OSError(int(number[1]), os.strerror(int(number[1]))), name)
    if isinstance(error, PermissionError):
        return OSError(f"the hub's storage refuses your token for {name}: log in again with `hf auth login`")
    said = re.split(r", domain: | for url ", said)[0].removeprefix("Task error: ")
    return OSError(
        f"the files of {name} did not come whole from the hub's storage ({said}): try again, or set HF_HUB_DISABLE_XET=1 to "
        "have them another way"
    )


_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


def _unreached(error: Exception, name: str, revision: str | None) -> str:
    offline = os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON")
    reason = "HF_HUB_OFFLINE is set" if offline else "the hub cannot be reached"
    what = f"revision {revision} of it" if revision is not None else "model of that name"
    cached = f"there is no folder {name}, no {what} in the hub's cache"
    if type(error).__name__ == "IncompleteSnapshotError":  # older versions do not tell
        cached = f"the hub's cache has {name} in part only"
    return f"{cached}, and {reason}: download it where there is a connection (`hf download {name}`) and copy it here"


def _of_the_disk(error: OSError, name: str) -> OSError:
    """Trouble with the place where downloads are kept."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = "downloads" if error.filename is None else error.filename
        return OSError(f"the disk of {place} is full: make room for {name}, or name another place by HF_HOME")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        place = "the cache" if error.filename is None else error.filename
        what = f"make it yours, or name another place for downloads such as {name} by HF_HOME"
        return OSError(f"{place} may not be written: {what}")
    if error.errno is None:  # such as a file of another length than was told
        said = next(iter(str(error).splitlines()), "") or type(error).__name__
        return OSError(f"the files of {name} did not come whole from the hub ({said.rstrip('.')}): try again")
    return OSError(f"the files of {name} could not be stored: {error}; mend that, or name another place by HF_HOME")


def _nearest(path: Path) -> str:
    """The folders whose names are like this one's, as the end of a sentence."""
    try:
        there = {str(folder) for folder in path.parent.iterdir() if folder.is_dir()}
    except OSError:
        return ""
    near = difflib.get_close_matches(str(path), there, n=3)
    return f"; folders with names like it: {', '.join(near)}" if near else ""
