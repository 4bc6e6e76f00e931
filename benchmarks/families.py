"""What works with which architecture class: one row for each, from a tiny random model of the real class.

    python benchmarks/families.py                 # print the table
    python benchmarks/families.py --write         # put it into docs/llms.md
    python benchmarks/families.py gemma3 granite  # print some rows

Each cell is measured: nothing is taken from a list.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests" / "model"))
from families import FAMILIES, write_family  # noqa: E402
from family_checks import family_recipe, greedy_text, make_batch, make_examples, own_loss  # noqa: E402

from signllava_cli.errors import UserError  # noqa: E402
from signllava_cli.generation.decoding import GenerateDecoder, decode_all, open_decoder  # noqa: E402
from signllava_cli.model.loading import ModelBundle, load_model_bundle  # noqa: E402
from signllava_cli.recipe import Recipe  # noqa: E402

PAGE = ROOT / "docs" / "llms.md"
START, END = "<!-- table: python benchmarks/families.py --write -->\n", "<!-- end of table -->\n"
LEARNING_RATE, STEPS = 1e-2, 5


@dataclass(frozen=True)
class Opened:
    """A family that was not refused: its folder, its recipe and its model."""

    folder: Path
    recipe: Recipe
    bundle: ModelBundle


def loss(opened: Opened) -> str:
    """Whether the loss is the one of the class's own forward, in float32."""
    batch = make_batch(opened.bundle, opened.recipe)
    with torch.no_grad():
        ours, own = opened.bundle.model(batch)[0], own_loss(opened.bundle, batch)
    difference = float((ours / own - 1).abs())
    return "equal" if difference <= 1e-5 else f"differs by {difference:.0e}"


def pretrain(opened: Opened) -> str:
    """Whether some steps on one batch lower its loss."""
    model, batch = opened.bundle.model.train(), make_batch(opened.bundle, opened.recipe)
    optimizer = torch.optim.AdamW(model.projectors.parameters(), LEARNING_RATE)
    losses = []
    for _ in range(STEPS):
        total, num_targets = model(batch)
        optimizer.zero_grad()
        (total / num_targets).backward()
        optimizer.step()
        losses.append(float(total.detach()) / num_targets)
    model.eval()
    return "learns" if losses[-1] < losses[0] else f"loss {losses[0]:.2f} to {losses[-1]:.2f}"


def decoder(opened: Opened) -> str:
    """How clips are decoded, if the hypotheses are those of the class's own forward."""
    examples = make_examples(opened.bundle, opened.recipe, with_answer=False)
    decoder = open_decoder(opened.bundle, opened.recipe)
    hypotheses = [hypothesis.text for hypothesis in decode_all(decoder, examples, len(examples))]
    expected = [greedy_text(opened.bundle, opened.recipe, example) for example in examples]
    if hypotheses != expected:
        return "differs"
    if not isinstance(decoder, GenerateDecoder):
        return "KV cache"
    return "`generate`" if decoder.has_batches else "`generate`, one clip at a time"


COLUMNS: dict[str, Callable[[Opened], str]] = {"loss": loss, "pretrain": pretrain, "decoder": decoder}


def row(name: str, folder: Path) -> list[str]:
    """The cells of a family: its name, its class, one for each column, and what is special about it."""
    family, recipe = FAMILIES[name], family_recipe(write_family(name, folder))
    llm_class = type_name(name)
    try:
        opened = Opened(folder, recipe, load_model_bundle(recipe, torch.device("cpu")))
    except UserError:
        return [name, llm_class, *["refused"] * len(COLUMNS), family.notes]
    opened.bundle.model.eval()
    return [name, llm_class, *(column(opened) for column in COLUMNS.values()), family.notes]


def type_name(name: str) -> str:
    """The class that transformers opens the folder of a family as."""
    config = FAMILIES[name].make_config()
    return transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)].__name__


def rows(names: list[str]) -> Iterator[list[str]]:
    for name in names:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            cells = row(name, Path(folder) / name)
        yield cells


def markdown(cells: list[list[str]]) -> str:
    """A Markdown table of all rows."""
    head = ["family", "class", *COLUMNS, "what is special"]
    lines = [head, ["---"] * len(head), *cells]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--write", action="store_true", help="put the table into docs/llms.md")
    options = parser.parse_args()
    table = markdown(list(rows(options.families or list(FAMILIES))))
    print(table)
    if options.write:
        before, _, rest = PAGE.read_text().partition(START)
        PAGE.write_text(before + START + "\n" + table + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
