"""Decoding one batch of clips."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from signllava_cli.data.batches import make_batch
from signllava_cli.data.examples import Example
from signllava_cli.model.assembly import Assembled
from signllava_cli.recipe import Generate, Stream


@dataclass(frozen=True)
class Hypothesis:
    """A translation and its score: the mean log-probability of its tokens, end of turn included.

    `finished` is false when `max_new_tokens` ended it.
    """

    text: str
    score: float
    finished: bool


@torch.no_grad()
def decode(
    assembled: Assembled, examples: Sequence[Example], streams: dict[str, Stream], settings: Generate
) -> list[Hypothesis]:
    """One hypothesis an example, by greedy or beam search; the same as if each were decoded alone.

    The batch is padded on the left, so that every clip's new tokens follow its own last position.
    """
    model, end = assembled.model, assembled.prompts.end_of_turn
    widths = {name: stream.width for name, stream in streams.items()}
    batch = make_batch(examples, widths, assembled.pad_id, "left").to(next(model.projectors.parameters()).device)
    output = model.llm.generate(
        inputs_embeds=model.embed(batch),
        attention_mask=batch.attention_mask,
        max_new_tokens=settings.max_new_tokens,
        num_beams=settings.beams,
        do_sample=False,
        temperature=None,
        top_p=None,
        top_k=None,
        length_penalty=settings.length_penalty,
        repetition_penalty=settings.repetition_penalty,
        eos_token_id=end,
        pad_token_id=assembled.pad_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    # what generate returns as scores are logits in greedy search, log-probabilities in beam search
    beams = output.beam_indices if settings.beams > 1 else None
    steps = model.llm.compute_transition_scores(
        output.sequences, output.scores, beams, normalize_logits=beams is None
    )
    return [
        _hypothesis(assembled, ids, log_probabilities)
        for ids, log_probabilities in zip(output.sequences.tolist(), steps.tolist(), strict=True)
    ]


def _hypothesis(assembled: Assembled, ids: list[int], log_probabilities: list[float]) -> Hypothesis:
    end = assembled.prompts.end_of_turn
    finished = end in ids
    length = ids.index(end) + 1 if finished else len(ids)
    score = sum(log_probabilities[:length]) / max(1, length)
    return Hypothesis(assembled.prompts.text(ids), score, finished)
