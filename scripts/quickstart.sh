#!/usr/bin/env bash
# From a fresh checkout to a trained character GPT: bash scripts/quickstart.sh [RUN_DIR]
# A run that is already in RUN_DIR is gone on with, never overwritten.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh
run_dir=${1:-runs/shakespeare_char}

[ -x .venv/bin/python ] && python=.venv/bin/python || python=$(find_python)
make_environment .venv "$python" .

if [ -e "$run_dir/recipe.json" ]; then
    echo "$run_dir holds an earlier run: going on with it where it stopped; if it is finished, it is evaluated and sampled again."
    echo "For a new run beside it: bash scripts/quickstart.sh runs/another"
    .venv/bin/jaxllm train "$run_dir"
else
    .venv/bin/jaxllm train configs/shakespeare_char.py --run-dir "$run_dir"
fi
echo
echo "evaluating $run_dir"
.venv/bin/jaxllm evaluate "$run_dir"
echo
echo "sampling from $run_dir"
.venv/bin/jaxllm generate "$run_dir" --prompt "ROMEO:" --max-tokens 300
echo
echo "the report with the loss curve: $run_dir/report.html"
echo "to use the command jaxllm in this shell: source .venv/bin/activate"
