"""What comes out when a recipe is run many times?

`search` looks for the best values of some fields, with Optuna: `field` and `space` say what may be chosen, `study` keeps the
trials, `attempt` runs one. `repeat` runs the same recipe with several seeds or, by `folds`, with each part of its data held
out: mean and deviation. Each run is an ordinary run folder inside the sweep's own (`sweep_folder`), which goes on where it was
stopped; `outcome` reads what came out, `results`, `picture` and `report` tell it.
"""

from jaxllm.sweep.repeat import Repeated, Run, Spread, repeat
from jaxllm.sweep.report import write_sweep_report
from jaxllm.sweep.results import describe, write_results
from jaxllm.sweep.search import Searched, Trial, search
from jaxllm.sweep.space import read_space
from jaxllm.sweep.sweep_folder import (
    RepeatConfig,
    SearchConfig,
    Sweep,
    default_folder,
    is_sweep_folder,
    load_sweep,
)

__all__ = [
    "RepeatConfig",
    "Repeated",
    "Run",
    "SearchConfig",
    "Searched",
    "Spread",
    "Sweep",
    "Trial",
    "default_folder",
    "describe",
    "is_sweep_folder",
    "load_sweep",
    "read_space",
    "repeat",
    "search",
    "write_results",
    "write_sweep_report",
]
