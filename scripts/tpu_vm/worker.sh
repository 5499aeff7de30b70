#!/usr/bin/env bash
# What a worker does for the machine that rents it; each verb ends by one line, `jaxllm-worker HOST STATE ...`.
#
#   worker.sh install ARCHIVE [PREPARE]      code and environment, then the shell command PREPARE
#   worker.sh start RUN LOGS OPTION...       `jaxllm train OPTION...` in the background, so that it outlives the connection
#   worker.sh report                         idle, running, ended (with an exit code), stopped, or interrupted
#   worker.sh follow LINES | worker.sh tail LINES
#   worker.sh stop                           training finishes its step, saves, and ends
#   worker.sh end                            training is killed
#
# In the home folder, `jaxllm` is the code, replaced whole by each installation, `jaxllm-env` its Python environment, and
# `jaxllm-run` what is known of the run: a lock held while it runs, its name, its log, its process, its exit code.
set -euo pipefail
state=$HOME/jaxllm-run
code=$HOME/jaxllm
mkdir -p "$state"

say() { echo "jaxllm-worker $(hostname) $*"; }

running() { ! flock --nonblock "$state/lock" true; }

report() {
    if [ ! -f "$state/name" ]; then say idle
    elif running; then say running "$(cat "$state/name")"
    elif [ -f "$state/stopped" ]; then say stopped "$(cat "$state/name")"
    elif [ -f "$state/exit" ]; then say ended "$(cat "$state/name")" "$(cat "$state/exit")"
    else say interrupted "$(cat "$state/name")" # the machine went down
    fi
}

install() {
    local archive=$1 prepare=${2:-}
    if running; then report; return; fi
    rm -rf "$code.new"
    mkdir "$code.new"
    tar -xzf "$archive" -C "$code.new"
    rm -rf "$code"
    mv "$code.new" "$code"
    export PATH="$HOME/.local/bin:$PATH"
    # The system's Python is 3.10; uv brings a newer one.
    command -v uv > /dev/null || python3 -m pip install --quiet --user uv
    [ -x "$code-env/bin/python" ] || uv venv --quiet --python 3.12 "$code-env"
    uv pip install --quiet --python "$code-env/bin/python" --editable "$code[tpu,gcs]"
    [ -z "$prepare" ] || bash -c "$prepare"
    say installed
}

start() {
    if running; then report; return; fi
    rm -f "$state"/{exit,stopped,process}
    echo "$1" > "$state/name"
    nohup setsid flock --nonblock --close "$state/lock" bash "$code/scripts/tpu_vm/worker.sh" train "$@" > /dev/null 2>&1 < /dev/null &
    echo $! > "$state/group"
    for _ in $(seq 50); do
        [ -f "$state/process" ] && break
        sleep 0.1
    done
    report
}

# Where the machine shuts down, this shell dies with it and leaves no exit code: that run is interrupted, not ended.
train() {
    local run=$1 logs=$2 status=0
    local log="$state/$run.log"
    shift 2
    cd "$code"
    "$code-env/bin/jaxllm" train "$@" >> "$log" 2>&1 &
    echo $! > "$state/process"
    wait $! || status=$?
    timeout 120 gcloud storage cp --quiet "$log" "$logs/$(hostname).log" || true
    echo "$status" > "$state/exit"
}

case "$1" in
    install | start | train | report) "$@" ;;
    follow) exec tail -n "$2" -F "$state/$(cat "$state/name").log" ;;
    tail) tail -n "$2" "$state/$(cat "$state/name").log" ;;
    stop)
        if running; then
            touch "$state/stopped"
            kill -TERM "$(cat "$state/process")"
        fi
        report
        ;;
    end)
        if running; then
            kill -KILL -- "-$(cat "$state/group")"
            sleep 1
        fi
        report
        ;;
esac
