# Sourced by the other scripts: makes the virtual environment, and installs jaxllm into it when pyproject.toml changed.

# The first Python 3.11 or later that can make an environment.
find_python() {
    local name
    for name in python3 python3.12 python3.13 python3.11; do
        if "$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "error: no Python 3.11 or later with the venv module found: install python3.12 and python3.12-venv" >&2
    return 1
}

# Python 3.12, from the path or from pyenv; fails where there is none.
find_python312() {
    local name
    for name in python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12*/bin/python3.12; do
        if "$name" -c 'import venv, ensurepip' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    return 1
}

# make_environment FOLDER PYTHON WHAT: WHAT is what pip installs, `.` or `.[test]`.
make_environment() {
    local folder=$1 python=$2 what=$3 stamp wanted
    if [ ! -x "$folder/bin/python" ]; then
        echo "making $folder with $("$python" --version)"
        "$python" -m venv "$folder"
    fi
    stamp="$folder/installed-$(echo "$what" | tr -dc 'a-z')"
    wanted=$("$folder/bin/python" -c 'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest())')
    if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        echo "$folder: jaxllm is installed"
        return
    fi
    echo "$folder: installing jaxllm and what it needs (some minutes the first time)"
    if ! "$folder/bin/python" -m pip install -qq --disable-pip-version-check --config-settings editable_mode=compat -e "$what"; then
        echo "error: pip could not install $what into $folder; is there a network? Run the script again when there is" >&2
        return 1
    fi
    echo "$wanted" > "$stamp"
}
