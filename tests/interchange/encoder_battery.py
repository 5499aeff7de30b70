"""The battery's rows for encoders of texts and images; golden files by scripts/oracle/encoders.py."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxllm.models import VisionConfig
from tests.interchange.battery import Loaded, golden, load, write_published
from tests.interchange.seeded import seeded

ROWS = (
    "BertModel",
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
    "RobertaForMaskedLM",
    "DistilBertForMaskedLM",
    "DistilBertForMaskedLM.untied",
    "ModernBertForMaskedLM",
    "ModernBertForMaskedLM.biases",
    "ViTForImageClassification",
    "DeiTForImageClassification",
)


def compute(name: str, folder: Path) -> Loaded:
    """One compiled program for everything that is compared."""
    write_published(folder, name)
    published, model, params = load(folder)
    wanted = golden(name)
    inputs, more = model_inputs(wanted, published.config)

    def loss(params: Any) -> tuple[jax.Array, Any]:
        output = model.apply({"params": params}, inputs, **more, capture=("hidden", "attention"))
        if output.logits is None:
            output = output._replace(logits=output.pooled)
        return golden_loss(name, output, wanted), output

    (value, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return Loaded(wanted, published, model, params, output, value, gradient)


def model_inputs(wanted: dict[str, Any], config: Any) -> tuple[jax.Array, dict[str, Any]]:
    """The golden batch: what the model is called with, and keywords."""
    if isinstance(config, VisionConfig):
        return jnp.asarray(wanted["images"]), {}
    mask = jnp.asarray(wanted["mask"])
    more = {"positions": jnp.maximum(jnp.cumsum(mask, axis=1) - 1, 0), "segment_ids": mask}
    if "token_types" in wanted:
        more["token_types"] = jnp.asarray(wanted["token_types"])
    return jnp.asarray(wanted["tokens"]), more


def golden_loss(name: str, output: Any, wanted: dict[str, Any]) -> jax.Array:
    """As scripts/oracle/encoders.py computes it."""
    labels, mask, logits = jnp.asarray(wanted["labels"]), jnp.asarray(wanted["mask"]), output.logits
    if name == "BertModel":
        probe = seeded("probe/hidden", output.hidden.shape) * np.asarray(wanted["mask"])[:, :, None]
        return jnp.sum(output.hidden * probe) + jnp.sum(logits * seeded("probe/pooled", logits.shape))
    if name == "BertForQuestionAnswering":
        logits = jnp.swapaxes(jnp.where(mask[:, :, None] == 1, logits, -1e30), 1, 2)
    scores = jnp.take_along_axis(jax.nn.log_softmax(logits), jnp.maximum(labels, 0)[..., None], axis=-1)[..., 0]
    return -jnp.sum(scores * (labels >= 0)) / jnp.sum(labels >= 0)
