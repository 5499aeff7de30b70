"""What is a pretrained model fitted to do?

A task is an objective over labelled examples that also says how to read a pretrained model (`headed`), what it predicts and how
good that is (`make_predict`, `score`). One file a task; `task` says what each of them offers.
"""

from jaxllm.finetune.tasks.classification import TextClassification
from jaxllm.finetune.tasks.embedding import SentenceEmbedding
from jaxllm.finetune.tasks.instruction import InstructionTuning
from jaxllm.finetune.tasks.mixture import Mixture
from jaxllm.finetune.tasks.preference import PreferenceTuning
from jaxllm.finetune.tasks.question import QuestionAnswering
from jaxllm.finetune.tasks.regression import Regression
from jaxllm.finetune.tasks.task import Found, Labels, Task, is_task
from jaxllm.finetune.tasks.text_to_text import TextToText
from jaxllm.finetune.tasks.tokens import TokenClassification
from jaxllm.finetune.tasks.verbalizer import PromptClassification

AnyTask = (
    TextClassification
    | Regression
    | TokenClassification
    | QuestionAnswering
    | SentenceEmbedding
    | InstructionTuning
    | PreferenceTuning
    | TextToText
    | PromptClassification
    | Mixture
)

__all__ = [
    "AnyTask",
    "Found",
    "InstructionTuning",
    "Labels",
    "Mixture",
    "PreferenceTuning",
    "PromptClassification",
    "QuestionAnswering",
    "Regression",
    "SentenceEmbedding",
    "Task",
    "TextClassification",
    "TextToText",
    "TokenClassification",
    "is_task",
]
