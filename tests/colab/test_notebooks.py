"""Every notebook runs, in a small setting, and is stored with the outputs of a real run."""

from base64 import b64decode
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from matplotlib.image import imread
from nbformat.v4 import new_code_cell, new_notebook, new_output

from scripts.colab import ROOT, execute, machine_paths

NOTEBOOKS = sorted((ROOT / "colab").glob("*.ipynb"))
SMALL = {"JAXLLM_STEPS": "30", "JAX_NUM_CPU_DEVICES": "2"}


def code_cells(notebook) -> dict:
    return {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}


def printed(cell) -> str:
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


def curve_width(cell) -> float:
    """Share of the columns of the first picture with something coloured in them: a curve, for axes and text are grey."""
    png = next(output.data["image/png"] for output in cell.outputs if "image/png" in output.get("data", {}))
    colors = imread(BytesIO(b64decode(png)))[..., :3]
    return float((colors.max(axis=-1) - colors.min(axis=-1) > 0.2).any(axis=0).mean())


def assert_shown(notebook) -> None:
    """Every code cell was run, in order, and shows something; no warning, no error, no path of the machine."""
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells.values()] == list(range(1, len(cells) + 1))
    for name, cell in cells.items():
        kinds = [output.get("name", output.output_type) for output in cell.outputs]
        assert kinds and not {"stderr", "error"} & set(kinds), (name, cell.outputs)
    assert machine_paths(notebook) == []


def assert_learned(notebook, steps: int, more: int) -> None:
    """What the quick start has to show: a curve as a picture, a sample, and a run that goes on where it stopped."""
    cells = code_cells(notebook)
    assert curve_width(cells["curve"]) > 0.7
    assert len(printed(cells["sample"]).partition("ROMEO:")[2]) > 200
    assert f"restored step {steps}\n" in printed(cells["resume"])
    assert printed(cells["steps"]) == f"steps 1 to {more}, {more} lines\n"
    assert "iframe" in cells["report"].outputs[-1].data["text/html"]


def test_quickstart_runs(tmp_path):
    notebook = execute(ROOT / "colab" / "01_quickstart.ipynb", tmp_path, SMALL)
    assert_shown(notebook)
    assert_learned(notebook, 30, 40)


def test_quickstart_is_stored_at_its_full_length():
    assert_learned(nbformat.read(ROOT / "colab" / "01_quickstart.ipynb", as_version=4), 2000, 2200)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_with_outputs(path: Path):
    assert_shown(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("text", ["see /home/someone/x.py:3: a warning", "PosixPath('/opt/data')", "at C:\\Users\\someone"])
@pytest.mark.parametrize("kind", ["stream", "execute_result", "error"])
def test_finds_paths_of_the_machine(kind, text):
    fields = {"stream": {"text": text}, "execute_result": {"data": {"text/plain": text}}, "error": {"traceback": [text]}}
    cell = new_code_cell(id="this", outputs=[new_output(kind, **fields[kind])])
    assert [found.partition(": ")[0] for found in machine_paths(new_notebook(cells=[cell]))] == ["this"]


@pytest.mark.parametrize(
    "text", ["9,261 tokens/s", "https://example.org/a/b", "runs/quickstart/report.html", "<b>1</b></p>", "1/30"]
)
def test_leaves_other_slashes_alone(text):
    cell = new_code_cell(
        outputs=[new_output("stream", text=text), new_output("display_data", data={"image/png": "a/b/c+/d/e"})]
    )
    assert machine_paths(new_notebook(cells=[cell])) == []
