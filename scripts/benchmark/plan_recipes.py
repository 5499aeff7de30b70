"""Plans of the large recipes for the slices that their meshes were chosen for, as records. Nothing runs on a TPU.

python scripts/benchmark/plan_recipes.py [RECIPE ...]      # needs libtpu: pip install 'jaxllm[tpu]'
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from record import write_record

from jaxllm.recipe import find_recipe

SLICES = {
    "gpt2_124m": "v5e:2x4",
    "llama_1b": "v4:2x2x4",
    "gemma3_1b": "v5e:4x8",
    "llama2_7b": "v5e:4x4",
    "llama3_8b": "v5p:2x2x4",
    "llama3_8b_131k": "v5p:4x4x8",
    "mixtral_8x7b": "v4:4x4x4",
    "llama3_70b": "v6e:16x16",
    "gpt3_175b": "v5p:8x8x8",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipes", nargs="*", default=list(SLICES), help=f"of {', '.join(SLICES)}; all by default")
    for name in parser.parse_args().recipes:
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "plan.json"
            command = ["plan", f"configs/{name}.py", "--topology", SLICES[name], "--json", str(out)]
            done = subprocess.run([sys.executable, "-m", "jaxllm", *command], stderr=subprocess.DEVNULL, check=False)
            if not out.exists():
                raise SystemExit(f"jaxllm plan of {name} ended with {done.returncode}: see its message above")
            plan = json.loads(out.read_text("utf-8"))
        notes = (
            f"jaxllm plan configs/{name}.py --topology {SLICES[name]}: the train step compiled by the TPU compiler of libtpu "
            f"{version('libtpu')}, not run. Bytes are the compiler's; cycles, times and MFU are estimates."
        )
        print(write_record("plan", find_recipe(f"configs/{name}.py"), plan, notes))


if __name__ == "__main__":
    main()
