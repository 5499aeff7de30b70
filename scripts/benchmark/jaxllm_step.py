"""A worker of train_cpu.py: takes N training steps of a recipe for each number N it reads, and prints the time of one.

The steps are those of `jaxllm train`: the compiled step, fed by the input pipeline, losses read every ten steps.
"""

import sys

from turns import serve

from jaxllm.hardware import set_up
from jaxllm.recipe import assemble, find_recipe
from jaxllm.training import init_state

READ_EVERY = 10


def main(source: str) -> None:
    set_up()
    job = assemble(find_recipe(source))
    train_step, batches = job.compile_step(), job.batches(0)
    state = init_state(job.model, job.optimizer[0], job.mesh, job.key, job.abstract)

    def steps(count: int) -> None:
        nonlocal state
        pending = []
        for index in range(count):
            state, metrics = train_step(state, next(batches))
            pending.append(metrics)
            if index % READ_EVERY == READ_EVERY - 1 or index == count - 1:
                for waiting in pending:
                    float(waiting["loss"])
                pending.clear()

    steps(5)
    serve(steps)


if __name__ == "__main__":
    main(sys.argv[1])
