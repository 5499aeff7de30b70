"""The working tree in one file, as it is here: what git tracks and what it does not ignore, changes included."""

import subprocess
import tarfile
from pathlib import Path

MOST_BYTES = 200_000_000


def pack(root: Path, to: Path) -> str:
    """Writes the archive; answers with the commit, `-dirty` where files differ from it.

    Raises:
      ValueError: `root` is no git checkout, or holds far more than code.
    """
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    files = sorted({name for name in listed.split("\0") if name and (root / name).is_file()})
    size = sum((root / name).stat().st_size for name in files)
    if size > MOST_BYTES:
        largest = max(files, key=lambda name: (root / name).stat().st_size)
        raise ValueError(
            f"the working tree must be at most {MOST_BYTES / 1e6:.0f} MB, as every worker gets it: got {size / 1e6:.0f} MB; "
            f"the largest file is {largest}. Name data in .gitignore, and bring it through the bucket"
        )
    with tarfile.open(to, "w:gz") as archive:
        for name in files:
            archive.add(root / name, name)
    return _git(root, "describe", "--always", "--dirty").strip()


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if done.returncode != 0:
        raise ValueError(f"{root} must be a git checkout with a commit, to be copied: git says {done.stderr.strip()!r}")
    return done.stdout
