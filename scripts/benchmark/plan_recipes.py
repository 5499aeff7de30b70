"""Plans of the large recipes for the slices that their meshes were chosen for, as records and in the recipes' headers. Nothing
runs on a TPU.

python scripts/benchmark/plan_recipes.py [RECIPE ...]      # needs libtpu: pip install 'jaxllm[tpu]'
"""

import argparse
import json
import re
import shlex
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from record import CHECKOUT, write_record

from jaxllm.cli.overrides import override
from jaxllm.hardware import set_up
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
OPTIONS = {"llama_1b": ["--mesh.fsdp", "16"]}
"""Where a recipe leaves its mesh to the machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("recipes", nargs="*", default=list(SLICES), help=f"of {', '.join(SLICES)}; all by default")
    recipes = parser.parse_args().recipes
    set_up()
    for name in recipes:
        words = [f"configs/{name}.py", "--topology", SLICES[name], *OPTIONS.get(name, [])]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "plan.json"
            done = subprocess.run([sys.executable, "-m", "jaxllm", "plan", *words, "--json", str(out)], check=False)
            if not out.exists():
                raise SystemExit(f"jaxllm plan of {name} ended with {done.returncode}: see its message above")
            plan = json.loads(out.read_text("utf-8"))
        notes = (
            f"jaxllm plan {shlex.join(words)}: the train step compiled by the TPU compiler of libtpu {version('libtpu')}, not "
            "run. Bytes are the compiler's; cycles, times and MFU are estimates."
        )
        print(write_record("plan", override(find_recipe(words[0]), OPTIONS.get(name, [])), plan, notes), flush=True)
        write_header(CHECKOUT / words[0], plan, OPTIONS.get(name, []))


def write_header(path: Path, plan: dict[str, Any], options: list[str]) -> None:
    """Puts the plan into the line of a recipe's header that begins with "Planned"."""
    found = re.compile(r"^Planned     .*$", re.MULTILINE)
    given = f" with {shlex.join(options)}" if options else ""
    line = (
        f"Planned     for {plan['topology']}{given} (record plan): {plan['peak_bytes_per_chip'] / 1e9:.1f} of "
        f"{plan['capacity_bytes_per_chip'] / 1e9:.1f} GB a chip; estimated step {plan['estimated_step_seconds']:.2f} s, MFU "
        f"{100 * plan['estimated_mfu']:.0f}%"
    )
    text = path.read_text("utf-8")
    if found.search(text) is None:
        raise SystemExit(f"the header of {path.name} must have a line that begins with 'Planned     '")
    path.write_text(found.sub(line, text, count=1), encoding="utf-8")


if __name__ == "__main__":
    main()
