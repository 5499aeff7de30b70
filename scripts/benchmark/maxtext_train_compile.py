"""MaxText's own train_compile, whose compiled program is kept: the other half of maxtext_compile.py, run in its environment.

python scripts/benchmark/maxtext_train_compile.py OUT_FILES maxtext/configs/base.yml FIELD=VALUE ...
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

from absl import app  # type: ignore[import-not-found]
from maxtext.trainers.pre_train import train_compile  # type: ignore[import-not-found]

FIELDS = ("argument_size_in_bytes", "temp_size_in_bytes", "output_size_in_bytes", "alias_size_in_bytes")


def main() -> None:
    out = Path(sys.argv.pop(1))
    lower_and_compile = train_compile.jit_and_compile

    def kept(*args, **options):
        start = time.perf_counter()
        compiled = lower_and_compile(*args, **options)
        seconds = time.perf_counter() - start
        out.with_suffix(".hlo").write_text(compiled.as_text())
        memory = compiled.memory_analysis()
        figures = {field: getattr(memory, field) for field in FIELDS}
        versions = {name: version(name) for name in ("jax", "libtpu")}
        out.with_suffix(".json").write_text(json.dumps({"lower_and_compile_seconds": seconds, **figures, **versions}))
        return compiled

    train_compile.jit_and_compile = kept
    app.run(train_compile.main)


main()
