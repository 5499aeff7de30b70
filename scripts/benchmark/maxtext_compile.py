"""Our train step and MaxText's, compiled in turn by the same TPU compiler for the same slice: memory, bytes sent, cycles.

python scripts/benchmark/maxtext_compile.py --maxtext ../maxtext --commit e591f30 --maxtext-python /path/to/its/python

Both programs are read by `jaxllm.plan`. Nothing runs on a TPU: the figures are the compiler's. Needs libtpu here, of the
version that MaxText's environment has.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from record import write_record

from jaxllm.plan.collectives import collectives
from jaxllm.plan.estimate import cycles_by_part
from jaxllm.plan.hlo import parse
from jaxllm.recipe import find_recipe

HERE = Path(__file__).parent
COMPILER = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
ROWS = {
    "llama2_7b": ("llama2-7b", "v5e:4x4", "v5e-16", 2048, 1),
    "llama2_7b_4": ("llama2-7b", "v5e:4x4", "v5e-16", 2048, 4),
    "llama3_8b": ("llama3.1-8b", "v5p:2x2x4", "v5p-32", 8192, 2),
}
"""Recipe (and sequences a chip): MaxText's model, the slice's two names, tokens a sequence, sequences a chip."""
CHIPS = 16
KEYS = ("peak_bytes_per_chip", "collective_bytes", "estimated_cycles", "lower_and_compile_seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--maxtext", required=True, help="folder of a MaxText checkout")
    parser.add_argument("--maxtext-python", required=True, help="a Python that has MaxText's requirements")
    parser.add_argument("--commit", required=True, help="the checkout's commit, for the record")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS))
    options = parser.parse_args()
    maxtext = Path(options.maxtext)
    for row in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            ours = compile_ours(row, Path(folder) / "ours.json")
            theirs = compile_maxtext(row, maxtext, options.maxtext_python, Path(folder) / "maxtext")
        if ours["libtpu"] != theirs["libtpu"]:
            raise ValueError(f"one compiler must do both: got libtpu {ours['libtpu']} here and {theirs['libtpu']} for MaxText")
        results: dict[str, Any] = {f"jaxllm_{key}": value for key, value in ours.items()}
        results |= {f"maxtext_{key}": value for key, value in theirs.items()}
        results |= {f"jaxllm_over_maxtext_{key}": ours[key] / theirs[key] for key in KEYS}
        for key in KEYS:
            print(f"{row:<12} {key:<26} {ours[key]:16,.0f} {theirs[key]:16,.0f}  {ours[key] / theirs[key]:.3f}", flush=True)
        notes = (
            f"{ROWS[row][1]}, {ROWS[row][3]:,} tokens, {ROWS[row][4]} sequence(s) a chip, one after the other on this machine; "
            f"MaxText {options.commit} with its default config but for synthetic data and no checkpoints. Not run: cycles and "
            "bytes are the TPU compiler's, Pallas kernels carry no cycles in either program."
        )
        recipe = find_recipe(f"configs/{row.removesuffix('_4')}.py")
        print(write_record("maxtext_compile" + ("_4" if row.endswith("_4") else ""), recipe, results, notes))


def compile_ours(row: str, out: Path) -> dict[str, Any]:
    _, topology, _, seq_len, sequences = ROWS[row]
    command = [sys.executable, "-m", "jaxllm", "plan", f"configs/{row.removesuffix('_4')}.py", "--topology", topology]
    command += ["--batch-size", str(CHIPS * sequences), "--data.seq-len", str(seq_len), "--json", str(out)]
    _run(command, Path.cwd(), {})
    plan = json.loads(out.read_text())
    return {
        "peak_bytes_per_chip": plan["peak_bytes_per_chip"],
        "collective_bytes": plan["collective_bytes"],
        "collectives": plan["collectives"],
        "estimated_cycles": plan["estimated_cycles"],
        "estimated_cycles_by_part": plan["estimated_cycles_by_part"],
        "lower_and_compile_seconds": plan["lower_seconds"] + plan["compile_seconds"],
        "jax": version("jax"),
        "libtpu": version("libtpu"),
    }


def compile_maxtext(row: str, maxtext: Path, python: str, out: Path) -> dict[str, Any]:
    model, _, slice_, seq_len, sequences = ROWS[row]
    fields = {
        "model_name": model,
        "compile_topology": slice_,
        "compile_topology_num_slices": 1,
        "per_device_batch_size": sequences,
        "max_target_length": seq_len,
        "run_name": "compared",
        "base_output_directory": out.parent,
        "dataset_type": "synthetic",
        "enable_checkpointing": False,
        "jax_cache_dir": out.parent / "cache",  # its own would hold what it compiled before
    }
    command = [python, str((HERE / "maxtext_train_compile.py").resolve()), str(out), "maxtext/configs/base.yml"]
    command += [f"{name}={value}" for name, value in fields.items()]
    _run(command, maxtext / "src", {"PYTHONPATH": str((maxtext / "src").resolve()), "DECOUPLE_GCLOUD": "TRUE"})
    figures = json.loads(out.with_suffix(".json").read_text())
    hlo = parse(out.with_suffix(".hlo").read_text())
    sent = collectives(hlo, {"fsdp": CHIPS})
    cycles = cycles_by_part(hlo)
    return {
        "peak_bytes_per_chip": figures["argument_size_in_bytes"]
        + figures["temp_size_in_bytes"]
        + figures["output_size_in_bytes"]
        - figures["alias_size_in_bytes"],
        "collective_bytes": sum(collective.bytes for collective in sent),
        "collectives": [{"kind": one.kind, "axes": list(one.axes), "count": one.count, "bytes": one.bytes} for one in sent],
        "estimated_cycles": sum(cycles.values()),
        "estimated_cycles_by_part": cycles,
        **{name: figures[name] for name in ("lower_and_compile_seconds", "jax", "libtpu")},
    }


def _run(command: list[str], folder: Path, more: dict[str, str]) -> None:
    done = subprocess.run(command, cwd=folder, env=os.environ | COMPILER | more, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[:4]} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")


if __name__ == "__main__":
    main()
