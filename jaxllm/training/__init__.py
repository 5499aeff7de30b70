"""How do parameters learn?

Loss, optimizer, state and step are pure functions; the loop at the edge calls them, logs, evaluates and saves.
`train_step(state, batch) -> (state, metrics)`, `eval_step(params, batch) -> metrics`.
"""

from jaxllm.training.interrupt import Interrupt
from jaxllm.training.loop import EvaluateConfig, Loop, NonFiniteLoss, Progress, out_of_patience, train
from jaxllm.training.loss import Loss, LossConfig, LossSums, cross_entropy, make_loss
from jaxllm.training.objectives import AnyObjective, CausalLM, Objective
from jaxllm.training.optimizer import OptimizerConfig, ScheduleConfig, evaluation_params, make_optimizer, make_schedule
from jaxllm.training.run_log import LogConfig, RunLog, read_metrics
from jaxllm.training.state import TrainState, abstract_state, init_state
from jaxllm.training.step import compile_train_step, jit_eval_step, make_eval_step, make_train_step

__all__ = [
    "AnyObjective",
    "CausalLM",
    "EvaluateConfig",
    "Interrupt",
    "LogConfig",
    "Loop",
    "Loss",
    "LossConfig",
    "LossSums",
    "NonFiniteLoss",
    "Objective",
    "OptimizerConfig",
    "Progress",
    "RunLog",
    "ScheduleConfig",
    "TrainState",
    "abstract_state",
    "compile_train_step",
    "cross_entropy",
    "evaluation_params",
    "init_state",
    "jit_eval_step",
    "make_eval_step",
    "make_loss",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "out_of_patience",
    "read_metrics",
    "train",
]
