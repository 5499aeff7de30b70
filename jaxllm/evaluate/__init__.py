"""How good is a model, and how did its run go?

`evaluate` is the loss, perplexity and accuracy over a whole split; `write_report` puts a run on one page.
"""

from jaxllm.evaluate.perplexity import evaluate
from jaxllm.evaluate.report import write_report

__all__ = ["evaluate", "write_report"]
