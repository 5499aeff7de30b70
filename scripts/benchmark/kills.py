"""Ten times one of four processes is killed at a random moment: how soon the others have ended, and how the run goes on.

python scripts/benchmark/kills.py
"""

import os
import sys
import tempfile
from pathlib import Path

from record import spread, write_record

from jaxllm.hardware import set_up

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
from tests.distributed.kills import COUNT, finish, kill_again_and_again, recipe  # noqa: E402
from tests.distributed.launch import SETTINGS  # noqa: E402

KILLS = 10


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kills = kill_again_and_again(Path(folder), KILLS)
        ours, theirs = finish(Path(folder), kills[-1].step + 3)
    results = {
        "until_all_ended_seconds": spread([round(kill.seconds, 2) for kill in kills]),
        "coordinator_killed_times": sum(kill.victim == 0 for kill in kills),
        "lives_without_a_checkpoint": sum(kill.step == 0 for kill in kills),
        "compared_steps": len(ours),
        "largest_loss_difference_nats": max(abs(ours[step] - theirs[step]) for step in theirs),
    }
    notes = (
        f"{COUNT} processes on loopback, gloo, mesh data 2 x fsdp 2; one of them gets SIGKILL, every third time before the "
        "first step, and the run is started again from its folder, with --connect-timeout 30: so long, 300 s by default, the "
        "others wait for one that was killed before it came. until_all_ended_seconds: from the kill to the end of the "
        "last of the other three. largest_loss_difference_nats: at the end, to a run of as many steps that nobody "
        "disturbed. The machine was shared with other work."
    )
    os.environ.update(SETTINGS)  # for the record
    set_up()
    print(write_record("kills", recipe(), results, notes))


if __name__ == "__main__":
    main()
