"""Runs a notebook of colab/ in a temporary folder and stores it with its outputs.

    python scripts/colab.py colab/01_quickstart.ipynb
    JAXLLM_STEPS=30 python scripts/colab.py colab/01_quickstart.ipynb --check      # quickly, and stores nothing

The folder has the repository's `configs/` and nothing else, so the notebook works with relative paths or not at all. The
kernel is the Python that runs this file. Outputs that name a path of this machine are refused.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import nbformat
from ipykernel.kernelspec import write_kernel_spec
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
SECONDS_PER_CELL = 1800
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/~<-])/[A-Za-z][\w.-]*/[\w.-]+|\b[A-Z]:\\\\?\w+")
"""`/folder/name` or `C:\\name`; not `tokens/s`, `https://...` or `</p>`."""


def execute(path: Path, folder: Path, variables: Mapping[str, str]) -> NotebookNode:
    """The notebook with the outputs of a run in `folder`; a cell that fails raises nbclient's CellExecutionError.

    Args:
      variables: environment variables of the kernel, on top of this process's own.
    """
    shutil.copytree(ROOT / "configs", folder / "configs", ignore=shutil.ignore_patterns("__pycache__"))
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    # A kernel of this very Python, whatever kernels the user has installed; it keeps no history in the user's folder.
    with tempfile.TemporaryDirectory() as private:
        env = {"IPYTHONDIR": f"{private}/ipython", **variables}
        write_kernel_spec(Path(private) / "kernels" / "python3", overrides={"env": env})
        specs = KernelSpecManager(kernel_dirs=[f"{private}/kernels"], ensure_native_kernel=False)
        manager = AsyncKernelManager(
            kernel_name="python3",
            kernel_spec_manager=specs,
            transport="ipc",  # sockets in the private folder; over TCP the kernel warns that it is not encrypted
            connection_file=f"{private}/connection.json",
        )
        client = NotebookClient(
            notebook,
            km=manager,
            timeout=SECONDS_PER_CELL,
            resources={"metadata": {"path": str(folder)}},
            record_timing=False,
            coalesce_streams=True,
        )
        client.execute(cleanup_kc=True)
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return notebook


def machine_paths(notebook: NotebookNode) -> list[str]:
    """Every absolute path in the outputs, with the id of its cell."""
    return [
        f"{cell.id}: {found[0]}"
        for cell in notebook.cells
        if cell.cell_type == "code"
        for text in _texts(cell.outputs)
        for found in ABSOLUTE_PATH.finditer(text)
    ]


def _texts(outputs: list[NotebookNode]) -> Iterator[str]:
    for output in outputs:
        yield output.get("text", "")
        yield "\n".join(output.get("traceback", []))
        yield from (str(value) for kind, value in output.get("data", {}).items() if not kind.startswith("image/"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--check", action="store_true", help="run it, and store nothing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        notebook = execute(options.notebook, Path(folder), {})
    if found := machine_paths(notebook):
        sys.exit("error: outputs must not name paths of this machine: got " + "; ".join(found))
    if not options.check:
        nbformat.write(notebook, options.notebook)
        print(f"stored {options.notebook}")


if __name__ == "__main__":
    main()
