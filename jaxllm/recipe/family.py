"""Which published family says what a config says."""

from pathlib import Path

from jaxllm.interchange import Family, find_family, known_families, published_config
from jaxllm.models import ModelConfig


def family_of(config: ModelConfig, architecture: str | None, source: str | Path) -> Family:
    """The family of a published class; by default of the first that can say all of a config.

    Raises:
      ValueError: none can.
    """
    if architecture is not None:
        return find_family(architecture)
    for family in known_families().values():
        if _says(family, config):
            return family
    raise ValueError(
        f"no published architecture says all that the {type(config).__name__} of {source} says: name the nearest with --as "
        "ARCHITECTURE, and the fields in the way are listed; or convert with --to jaxllm"
    )


def _says(family: Family, config: ModelConfig) -> bool:
    try:
        published_config(family, config)
    except (ValueError, TypeError, KeyError, AttributeError):  # another kind of config, or one it has no words for
        return False
    return True
