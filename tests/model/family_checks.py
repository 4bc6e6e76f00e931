"""What is checked of an architecture class: its recipe, a batch for it, and its own loss and greedy hypothesis."""

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from signllava_cli.data.batches import Batch, collate_examples
from signllava_cli.data.examples import Example, ExampleBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.model.loading import ModelBundle
from signllava_cli.recipe import Recipe, read_recipe


def family_recipe(folder: Path, *settings: str) -> Recipe:
    """The recipe of the model in `folder`, in float32."""
    return read_recipe("toy/tiny_pretrain", [f"llm.path={folder}", "generate.max_new_tokens=8", *settings])


def make_examples(bundle: ModelBundle, recipe: Recipe, with_answer: bool) -> list[Example]:
    """Clips of different lengths with random frames."""
    builder = ExampleBuilder(bundle.prompts, recipe.streams, recipe.data.max_seq_len, 1, 2)
    rng = np.random.default_rng(0)
    return [
        builder.build(
            f"recording/{clip}",
            {
                name: rng.normal(size=(length, stream.width)).astype("float16")
                for name, stream in recipe.streams.items()
            },
            translation_instruction(recipe.tasks, "The cat sits."),
            ["The cat sits."] * (clip % 2),
            with_answer=with_answer,
        )
        for clip, length in enumerate((9, 4, 14))
    ]


def make_batch(bundle: ModelBundle, recipe: Recipe, omit_prefix: bool = False) -> Batch:
    """A training batch of these clips."""
    examples = make_examples(bundle, recipe, with_answer=True)
    return collate_examples(examples, recipe.streams, bundle.pad_id, "right", omit_prefix)


def own_loss(bundle: ModelBundle, batch: Batch) -> torch.Tensor:
    """The loss of the class's own forward for the same input embeddings, on all its logits."""
    logits = bundle.model.llm(inputs_embeds=bundle.model.embed(batch), use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1)[batch.logit_indices].float(), batch.targets, reduction="sum")


@torch.no_grad()
def greedy_text(bundle: ModelBundle, recipe: Recipe, example: Example) -> str:
    """The greedy hypothesis, with the class's own forward on the whole sequence for each token."""
    batch = collate_examples([example], recipe.streams, bundle.pad_id, "right")
    sequence = bundle.model.embed(batch)  # (1, L, hidden)
    ids: list[int] = []
    while len(ids) < recipe.generate.max_new_tokens and bundle.prompts.end_of_turn not in ids:
        logits = bundle.model.llm(inputs_embeds=sequence, use_cache=False).logits
        ids.append(int(logits[0, -1].argmax()))
        next_embedding = bundle.model.llm_forward.embed(torch.tensor([ids[-1:]]))
        sequence = torch.cat([sequence, next_embedding], dim=1)
    return bundle.prompts.text(ids)
