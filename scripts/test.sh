#!/usr/bin/env bash
# All checks: style, types, room arrows, tests. Arguments go to pytest: bash scripts/test.sh -k sharding
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/environment.sh

[ -x .venv/bin/python ] && python=.venv/bin/python || python=$(find_python)
make_environment .venv "$python" ".[test]"

step() {
    echo
    echo "== $*"
    local start=$SECONDS
    "$@"
    echo "== $((SECONDS - start)) s"
}

step .venv/bin/ruff check .
step .venv/bin/ruff format --check .
step .venv/bin/pyright
step .venv/bin/lint-imports
step .venv/bin/pytest -q -n 2 --dist loadfile "$@"

# A part once more on Python 3.12, where there is one and the environment above has another; compiled as users compile, not in
# haste as by tests/conftest.py.
version=$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != 3.12 ] && python312=$(find_python312); then
    make_environment .venv-3.12 "$python312" ".[test]"
    export XLA_FLAGS= JAX_DISABLE_MOST_OPTIMIZATIONS=0
    step .venv-3.12/bin/pytest -q -n 2 --dist loadfile tests/hardware tests/data tests/training/test_optimizer_parity.py \
        tests/recipe/test_fit.py::test_a_run_folder_holds_everything tests/recipe/test_fit.py::test_load_gives_the_model_back
fi
echo
echo "all checks passed"
