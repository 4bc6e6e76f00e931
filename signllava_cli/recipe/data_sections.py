"""The sections of a recipe about what a model reads: the dataset, the instructions and the context."""

import dataclasses
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from signllava_cli.recipe.setting_types import Count, Positive, Probability, Share, Weight, section

# chat_turns.py splits a chat template at this text, so no text of a prompt may hold it.
PLACEHOLDER = "\N{OBJECT REPLACEMENT CHARACTER}mark\N{OBJECT REPLACEMENT CHARACTER}"


def _require_scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ValueError("must be a text, a number, true or false (a date in quotes is a text)")
    return value


TemplateVariable = Annotated[str | int | float | bool, BeforeValidator(_require_scalar)]


@section
class Data:
    """The dataset folder, its splits, and the length of a sequence."""

    root: str = "data"
    """The dataset folder. In Sign_LLaVA: `data_dir`."""
    train: str = "train"
    """Split to train on. Its annotation is `annotation.SPLIT.json` in `data.root`. In Sign_LLaVA:
    `annotation_path.train`."""
    dev: str = "dev"
    """Split that dev loss and dev BLEU are computed on. In Sign_LLaVA: `annotation_path.dev`."""
    missing: Literal["error", "skip"] = "error"
    """What happens to clips without features: an error, or they are skipped. Both name and count them. The default is
    an error because a score over fewer clips is not comparable; Sign_LLaVA skips them without a message."""
    max_seq_len: Positive = 2048
    """Length of a sequence at most, in tokens: text, embeddings of frames and boundary vectors. A longer one loses
    frames first, down to `data.min_frames` per stream, then context sentences; question and answer are never cut.
    Memory grows with it. In Sign_LLaVA: `model_max_length`, where the answer is cut."""
    min_frames: Positive = 16
    """Frames of each stream that are kept when a sequence is too long. A lower number keeps context instead of
    frames."""
    num_workers: Count = 0
    """Worker processes that load data, per training process. 0: the training process loads data itself, which needs
    the least memory; the example order does not depend on it. In transformers and Sign_LLaVA:
    `dataloader_num_workers`."""


@section
class TaskWeights:
    """How often each task is drawn, relative to the others. Weights need not sum to 1."""

    translation: Weight = 1.0
    """Weight of the translation of the clip. In Sign_LLaVA: `sample_weight`, as for the other tasks."""
    one_word_present: Weight = 0.0
    """Weight of the question whether a word is signed. It needs keywords (`signllava prepare keywords`)."""
    multi_word_present: Weight = 0.0
    """Weight of the question which of several words are signed. It needs keywords (`signllava prepare keywords`)."""
    is_reversed: Weight = 0.0
    """Weight of the question whether the video is played backwards. Half of these examples are reversed."""


@section
class Tasks:
    """The texts of the prompt, and how often each task is trained. Every checkpoint stores the texts."""

    system: str = "You are a skilled interpreter who translates sign language into text."
    """System text of the prompt. It begins the user's turn if the chat template of the LLM has no system turn."""
    streams: str = "The signing of one sentence:"
    """Text before the streams."""
    context: str = "Sentences signed before it:"
    """Text before the context sentences. Left out where a clip sees none."""
    translation: str = "What is signed?"
    """Instruction for a translation."""
    one_word_present: str = 'Is the word "{word}" signed? Answer yes or no.'
    """Instruction about one word, which `{word}` stands for."""
    multi_word_present: str = "Is each of these words signed: {words}? Answer yes or no for each, in this order."
    """Instruction about several words, which `{words}` stands for."""
    is_reversed: str = "Is the video played backwards? Answer yes or no."
    """Instruction about the direction of the video."""
    yes: str = "yes"
    """Positive answer to a question."""
    no: str = "no"
    """Negative answer to a question."""
    chat_template_kwargs: dict[str, TemplateVariable] = dataclasses.field(default_factory=dict)
    """Variables of the LLM's chat template. Templates that know them are given `enable_thinking: false` and
    `date_string: 26 Jul 2024`, the date of those that print today's, unless these are set here. In transformers:
    `chat_template_kwargs`."""
    max_words: Annotated[int, Field(ge=2, le=100)] = 5
    """Words in one multi_word_present question at most. In Sign_LLaVA: `max_num_words`."""
    paraphrases: Share = 0.0
    """Share of the translations in training whose answer is a paraphrase of the clip. It needs paraphrases in the
    annotation (`signllava prepare paraphrases`). In Sign_LLaVA: `use_paraphrases`, which draws one of the translation
    and its k paraphrases, a share of k / (k + 1)."""
    train: TaskWeights = dataclasses.field(default_factory=TaskWeights)
    """How often each task is drawn in training. In Sign_LLaVA: `SignMultiTaskArguments`."""
    dev: TaskWeights = dataclasses.field(default_factory=TaskWeights)
    """How often each task is drawn in the dev loss. In Sign_LLaVA: `SignMultiTaskEvalArguments`."""

    def texts(self) -> dict[str, str]:
        """The settings that are texts."""
        return {key: value for key, value in vars(self).items() if isinstance(value, str)}


@section
class Context:
    """Which earlier sentences of its recording a clip sees: the first `prelude` ones and the last `window` ones.

    The dev split is always scored under all of its gold context.
    """

    window: Count = 0
    """Sentences right before the clip that it sees. 0: none, the default because context in generation is not always
    available. In Sign_LLaVA: `context_window_size`."""
    prelude: Count = 0
    """Sentences at the start of the recording that a clip sees. They name the topic. In Sign_LLaVA:
    `prelude_window_size`."""
    min_window: Count | None = None
    """Smallest window of an example in training. Each example draws its window between this and `context.window`.
    `null`: always `context.window`."""
    min_prelude: Count | None = None
    """Smallest prelude of an example in training. Each example draws its prelude between this and `context.prelude`.
    `null`: always `context.prelude`."""
    source: str = "gold"
    """Context in training: `gold`, `predicted:FILE` or `mixed:FILE`. `gold` is the references, `predicted:FILE` the
    hypotheses of an earlier model, which `signllava generate` wrote for the training split, `mixed:FILE` either of
    them, drawn per example. A model that only saw references trusts its context too much in generation."""
    predicted_share: Share = 0.5
    """Share of the examples that see hypotheses under `context.source: mixed:FILE`. Half, as in LiTFiC
    (arXiv:2501.09754)."""
    dropout: Probability = 0.0
    """Probability that an example sees no context in training. Above 0, the model also learns to translate
    without."""
    sentence_dropout: Probability = 0.0
    """Probability that a context sentence is dropped in training, independent of the others."""

    @property
    def predictions(self) -> str | None:
        """The FILE of `predicted:FILE` or `mixed:FILE`."""
        return self.source.partition(":")[2] or None
