import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """if True:
    import os, signal, threading, time
    from pathlib import Path
    from jaxllm.data import DataConfig, open_data, train_batches

    def workers():
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if is_worker(path)]

    def is_worker(path):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            return parent == os.getpid() and b"spawn_main" in (path / "cmdline").read_bytes()
        except (OSError, IndexError):
            return False

    if __name__ == "__main__":
        interrupts = []
        signal.signal(signal.SIGINT, lambda *_: interrupts.append(time.monotonic()))
        data = open_data(DataConfig(dataset="tiny_shakespeare", seq_len=8), seed=0)
        batches = train_batches(data.train, batch_size=2, num_workers=2)

        def interrupt_starting_workers():
            end = time.monotonic() + 60
            while not workers() and time.monotonic() < end:
                time.sleep(0.001)
            for _ in range(20):
                os.killpg(0, signal.SIGINT)
                time.sleep(0.05)

        thread = threading.Thread(target=interrupt_starting_workers)
        thread.start()
        next(batches)  # kept by nobody: Grain shares its memory
        thread.join()
        os.killpg(0, signal.SIGINT)
        taken = 1 + sum(len(next(batches)) == 5 for _ in range(50))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        alive = len(workers())
        batches.close()
        print(taken, len(interrupts) > 0, signal.SIGINT in blocked, alive, len(workers()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the worker processes in /proc")
def test_ctrl_c_is_for_the_parent(tmp_path: Path):
    (tmp_path / "program.py").write_text(PROGRAM)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        printed, errors = process.communicate(timeout=100)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (printed.split(), "Traceback" in errors) == (["51", "True", "False", "2", "0"], False), errors
