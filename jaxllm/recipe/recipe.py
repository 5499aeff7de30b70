"""One run, described: a frozen tree that composes what each room owns and checks."""

from dataclasses import dataclass, field
from typing import Literal

from jaxllm.checkpoint import CheckpointConfig
from jaxllm.data import DataConfig, ImageDataConfig, TaskDataConfig
from jaxllm.finetune import AdaLoRA, AnyMethod, Full
from jaxllm.finetune.tasks import AnyTask, Mixture, PreferenceTuning
from jaxllm.hardware import ProfileConfig
from jaxllm.inference import SamplingConfig
from jaxllm.models import ModelConfig, TransformerConfig
from jaxllm.models.config import AttentionKernel, DType, Remat
from jaxllm.sharding import AxisSize, MeshConfig, check_batch, check_divides
from jaxllm.training import AnyObjective, CausalLM, EvaluateConfig, LogConfig, LossConfig, OptimizerConfig


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    prompt: str = "\n"
    """Text that the sample in the report continues."""
    sampling: SamplingConfig = field(default_factory=lambda: SamplingConfig(max_tokens=300, temperature=0.8))
    """How it is drawn."""


@dataclass(frozen=True, kw_only=True)
class WatchConfig:
    step_seconds: float = 900.0
    """With many processes: when none of them has moved for so long, in a step, a batch of an evaluation (which is
    compiled with the first) or a save, the run is ended, and which process is missing is said. Outlast the longest pause that
    is none of a hung device or network."""
    phase_seconds: float = 3600.0
    """The same for what comes before and after the steps, each by itself: to open the data or copy one of its files, to
    compile the train step, to read a checkpoint or make the first parameters, to open the log, to draw the sample, to write
    the report."""

    def __post_init__(self) -> None:
        for name in ("step_seconds", "phase_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"watch.{name} must be above 0: got {getattr(self, name):g}")


@dataclass(frozen=True, kw_only=True)
class FromPretrained:
    """The config of the pretrained model, with what is said here changed."""

    dropout: float | None = None
    """Probability of dropping a value. By default as published."""
    context_len: int | None = None
    """Longest sequence in tokens. By default as published."""
    param_dtype: DType | None = None
    """Type in which parameters are kept. By default float32."""
    compute_dtype: DType | None = None
    """Type of activations. By default float32."""
    attention_kernel: AttentionKernel | None = None
    """Who computes attention. By default by device."""
    remat: Remat | None = None
    """What the backward pass recomputes of a block. By default nothing."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str
    """Names the run's folder, runs/<name>, unless run_dir says otherwise."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Rows an optimizer step, over all devices."""
    seed: int = 0
    """Decides initial parameters, data order and dropout."""
    accumulate: int = 1
    """Parts of a batch whose gradients are added up in turn, to save memory."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What to do when loss or gradient is not finite: stop the run, or skip the update."""
    run_dir: str | None = None
    """Folder of the run, or its URL, "gs://bucket/folder". By default runs/<name>, with a number where that is taken."""
    pretrained: str | None = None
    """The model to begin with: a folder, a name on the hub, a GGUF file, or a run. By default none: parameters are new."""
    model: ModelConfig | FromPretrained = FromPretrained()
    """What the model is made of. By default what the pretrained one is."""
    method: AnyMethod = Full()
    """What learns of a pretrained model, and what is added to it. With `adapter` by default as that one has been made."""
    adapter: str | None = None
    """Folder of an adapter to go on with, jaxllm's or PEFT's; `pretrained` names its base. By default a new one."""
    data: DataConfig | ImageDataConfig | TaskDataConfig
    objective: AnyObjective | AnyTask = CausalLM()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    profile: ProfileConfig = ProfileConfig()
    sample: SampleConfig = SampleConfig()
    watch: WatchConfig = WatchConfig()

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: got {getattr(self, name)}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be in [0, 2^31): got {self.seed}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size: got accumulate={self.accumulate}, batch_size={self.batch_size}"
            )
        if self.pretrained is None and isinstance(self.model, FromPretrained):
            raise ValueError("a recipe needs a model, or with `pretrained` the name of one to begin with: got neither")
        if self.adapter is not None and self.pretrained is None:
            raise ValueError(f"adapter needs `pretrained`, the model that it is for: got adapter={self.adapter!r} alone")
        task = self.objective.task if isinstance(self.objective, Mixture) else self.objective
        if self.adapter is not None and isinstance(task, PreferenceTuning) and task.kind != "orpo":
            raise ValueError(
                "preferences are learned against the model as it was, adapter included: name as `pretrained` the run that has "
                f"learnt it, or what `jaxllm convert` makes of it, without adapter={self.adapter!r}; or take "
                "objective.kind='orpo'"
            )
        if not isinstance(self.model, FromPretrained):  # else once it is known
            self.objective.check(self.model, self.data, self.loss)
            self.method.check(self.model)
            self._check_mesh(self.model)
        if self.loss.neftune and isinstance(self.data, ImageDataConfig):
            raise ValueError(f"loss.neftune is noise on embeddings of text: got {self.loss.neftune} for images; leave it out")
        if self.optimizer.ema is not None and isinstance(self.method, AdaLoRA):
            raise ValueError(
                f"AdaLoRA does not prune an average of parameters: got optimizer.ema={self.optimizer.ema}; leave it out"
            )
        if self.mesh.explicit and self.optimizer.name == "muon":
            raise ValueError("optimizer.name=muon needs mesh.explicit=False: Optax's muon has no explicit layouts")

    @property
    def model_config(self) -> ModelConfig:
        """The model's config, once it is known."""
        if isinstance(self.model, FromPretrained):
            raise ValueError(f"the config of the pretrained model is not known yet: open {self.pretrained} first")
        return self.model

    def _check_mesh(self, model: ModelConfig) -> None:
        """Refuses sizes that the mesh cannot split evenly; that there are devices enough is seen when the run starts."""
        time = () if isinstance(self.data, ImageDataConfig) else (AxisSize("time", "data.seq_len", self.data.seq_len),)
        check_divides(self.mesh, (*model.axis_sizes(), *time))
        microbatches = model.microbatches if isinstance(model, TransformerConfig) else None
        check_batch(self.mesh, self.batch_size, self.accumulate, microbatches)


STACKS = ("model", "model.encoder", "model.decoder")
"""Where a model's config has a stack of blocks, or is one."""

MAY_CHANGE = (
    "steps",
    "run_dir",
    "accumulate",
    "on_nonfinite",
    *(
        f"{stack}.{field}"
        for stack in STACKS
        for field in ("layer_loop", "norm_barrier", "attention_kernel", "microbatches", "remat")
    ),
    "loss.chunk",
    "optimizer.state_memory",
    "data.data_dir",
    "data.test_split",
    "data.num_workers",
    "data.prefetch",
    "mesh",
    "evaluate",
    "checkpoint",
    "log",
    "profile",
    "sample",
    "watch",
)
"""Fields, or groups of them, that a run may change when it goes on and still be the same run: how far, where and in which
pieces it computes, and what it writes. All others would make it another run."""
