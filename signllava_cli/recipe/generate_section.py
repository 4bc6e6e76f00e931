"""The section `generate` of a recipe: how hypotheses are decoded."""

import dataclasses
from typing import Annotated, Literal

from pydantic import Field

from signllava_cli.recipe.setting_types import Count, Positive, Rate, Task, section


@section
class Generate:
    """How hypotheses are decoded. Options of `signllava generate` override it."""

    split: str = "test"
    """Split to translate. In Sign_LLaVA: the file `annotation_path`."""
    context_source: str = "gold"
    """Where context sentences come from: none, gold, predicted or prepared:FILE. `gold` is the references, an upper
    bound; `predicted` the model's own hypotheses of this run; `prepared:FILE` those of an earlier one. In Sign_LLaVA:
    `on_the_fly_predicted_context`, `prepared_predicted_context`."""
    missing_context: Literal["skip", "gold"] = "skip"
    """What later clips see of a clip without features: nothing, or its reference. `skip` gives the model nothing that
    it could not know."""
    context_from: list[str] = dataclasses.field(default_factory=list)
    """Splits that gold context is also taken from. For benchmarks that divide recordings over splits, such as
    PHOENIX-2014T (docs/context.md)."""
    task: Task = "translation"
    """What is asked of each clip. All but translation are the yes/no questions of training. In Sign_LLaVA: `task`."""
    task_prompt: Annotated[str, Field(min_length=1)] | None = None
    """Instruction of your own instead of the one for translations. It has no reference, so it cannot be scored."""
    num_beams: Positive = 5
    """Number of beams; 1 is greedy decoding. More beams cost time and memory in proportion; 5 is that of Sign_LLaVA.
    In transformers and Sign_LLaVA: `num_beams`."""
    max_new_tokens: Positive = 100
    """Length of a hypothesis at most, in tokens. In transformers and Sign_LLaVA: `max_new_tokens`."""
    min_new_tokens: Count = 0
    """Length of a hypothesis at least, in tokens. In transformers: `min_new_tokens`; in Sign_LLaVA: `min_length`."""
    length_penalty: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    """Exponent of the length by which a beam's log-probability is divided. Above 1 favors long hypotheses, 0 compares
    sums. In transformers and Sign_LLaVA: `length_penalty`."""
    repetition_penalty: Rate = 1.0
    """Penalty on tokens that were generated before; 1 is none. In transformers and Sign_LLaVA: `repetition_penalty`,
    there over the prompt too."""
    no_repeat_ngram_size: Count = 0
    """Length of n-grams that may occur once in a hypothesis; 0 allows all. In transformers and Sign_LLaVA:
    `no_repeat_ngram_size`."""
    temperature: Rate | None = None
    """Sampling temperature. `null`: beam search or greedy decoding, without sampling. In transformers: `temperature`
    with `do_sample`."""
    top_k: Count = 0
    """Likeliest tokens that are sampled from; 0 is all. Has an effect with `generate.temperature` alone. In
    transformers: `top_k`, by default 50."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Probability mass of the likeliest tokens that are sampled from. Has an effect with `generate.temperature`
    alone. In transformers: `top_p`."""
    seed: Count = 0
    """Seed of samples, of questions, and of shuffled features. A clip's random numbers depend on this and its id
    alone, not on its batch. In Sign_LLaVA: `seed`."""
    num_return_sequences: Positive = 1
    """Hypotheses that are kept of each clip, with their scores. At most `generate.num_beams` in beam search. In
    transformers: `num_return_sequences`."""
    mbr: Literal["chrf", "bleu"] | None = None
    """Metric of minimum Bayes risk decoding: the hypothesis that agrees most with the others is chosen. `null`: the
    one with the highest score. It needs `generate.num_return_sequences` above 1."""
    abstain: Annotated[float, Field(le=0, allow_inf_nan=False)] | None = None
    """Mean log-probability below which a hypothesis is left empty. Such clips are counted, and the text is kept in
    the predictions as `abstained`. `null`: no hypothesis is."""
    batch_size: Positive = 8
    """Clips that are decoded together. Changes memory and speed; hypotheses change by rounding alone. In
    transformers: `per_device_eval_batch_size`."""
    max_tokens_per_batch: Positive | None = None
    """Tokens that are decoded together at most: the longest prompt and its new tokens, times the clips. Bounds the
    memory of a batch of long clips; beams are not counted. `null`: no bound but `generate.batch_size`."""
    torch_compile: bool = False
    """Compile the layers of the LLM with torch.compile before decoding. Worth it for many thousands of clips on a
    GPU. In transformers: `torch_compile`."""
    ablate: list[str] = dataclasses.field(default_factory=list)
    """Streams that are left out of the sequence. Shows what a stream contributes. Of joined streams, those left out
    are zeros, unless all of them are."""
    features: Literal["own", "shuffled", "zero"] = "own"
    """Features that a clip is shown with: its own, those of another clip, or zeros. A control: a model that scores as
    well with `shuffled` or `zero` ignores the video."""
