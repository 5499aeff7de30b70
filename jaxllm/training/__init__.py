"""How do parameters learn?

Loss, optimizer, state and step are pure functions; the loop at the edge calls them, logs, evaluates and saves.
`train_step(state, batch) -> (state, metrics)`, `eval_step(params, batch) -> metrics`.
"""

from jaxllm.training.cross_entropy import LossConfig, LossSums, cross_entropy
from jaxllm.training.interrupt import Interrupt
from jaxllm.training.loop import EvaluateConfig, Loop, NonFiniteLoss, Progress, out_of_patience, train
from jaxllm.training.loss import Loss, make_loss
from jaxllm.training.metrics_file import read_metrics
from jaxllm.training.objectives import AnyObjective, CausalLM, Objective
from jaxllm.training.optimizer import (
    OptimizerConfig,
    ScheduleConfig,
    evaluated,
    evaluation_params,
    make_optimizer,
    make_schedule,
    scale_by_path,
)
from jaxllm.training.run_log import LogConfig, RunLog
from jaxllm.training.state import TrainState, abstract_state, init_state
from jaxllm.training.step import jit_eval_step, lower_train_step, make_eval_step, make_predict_step, make_train_step

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
    "cross_entropy",
    "evaluated",
    "evaluation_params",
    "init_state",
    "jit_eval_step",
    "lower_train_step",
    "make_eval_step",
    "make_loss",
    "make_optimizer",
    "make_predict_step",
    "make_schedule",
    "make_train_step",
    "out_of_patience",
    "read_metrics",
    "scale_by_path",
    "train",
]
