"""What works with which architecture class: one row for each, from a tiny random model of the real class.

    python benchmarks/llms.py                 # print the table
    python benchmarks/llms.py --write         # put it into docs/llms.md
    python benchmarks/llms.py gemma3 granite  # print some rows

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
from signllava_cli.model.layer_weights import adapter_share, format_share, layer_weights, quantized_share  # noqa: E402
from signllava_cli.model.loading import ModelBundle, load_model_bundle  # noqa: E402
from signllava_cli.model.merging import merge_adapter  # noqa: E402
from signllava_cli.recipe import Recipe  # noqa: E402

PAGE = ROOT / "docs" / "llms.md"
START, END = "<!-- table: python benchmarks/llms.py --write -->\n", "<!-- end of table -->\n"
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


def lora(opened: Opened) -> str:
    """The shares of the layers' weights that an adapter of all linear layers covers, and that 4 bits quantize."""
    settings = ("lora.enabled=true", "lora.lora_dropout=0", "llm.bits=4")
    llm = load_model_bundle(family_recipe(opened.folder, *settings), torch.device("cpu")).model.llm
    weights = layer_weights(llm)
    return f"{format_share(adapter_share(weights))}, {format_share(quantized_share(weights))}"


@torch.no_grad()
def merge(opened: Opened) -> str:
    """Whether the merged LLM has the logits of the LLM with an adapter of random weights."""
    settings = ("lora.enabled=true", "lora.lora_dropout=0")
    llm = load_model_bundle(family_recipe(opened.folder, *settings), torch.device("cpu")).model.llm
    generator, ids = torch.Generator().manual_seed(0), torch.arange(3, 35)[None]
    before = llm(ids).logits
    for name, weight in llm.named_parameters():
        if "lora_B" in name:
            weight.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    adapted = llm(ids).logits
    assert not torch.allclose(adapted, before, rtol=1e-2, atol=1e-2)
    merged = merge_adapter(llm, torch.float32)(ids).logits
    difference = float((merged - adapted).norm() / adapted.norm())
    return "equal" if difference <= 1e-4 else f"differs by {difference:.0e}"


COLUMNS: dict[str, Callable[[Opened], str]] = {
    "loss": loss,
    "pretrain": pretrain,
    "LoRA, 4 bits": lora,
    "decoder": decoder,
    "merge": merge,
}
# family -> the real chat template of its LLMs in tests/data/chat_templates, whose prompts
# tests/data/test_chat_templates.py compares with the whole dialogue
TEMPLATES = {
    "llama": "llama-3.1",
    "qwen2": "qwen2.5",
    "qwen3": "qwen3",
    "qwen3_moe": "qwen3-2507",
    "qwen3_5": "qwen3.5",
    "mistral": "mistral-0.3",
    "ministral": "mistral-small-3.2",
    "phi3": "phi-3.5",
    "smollm3": "smollm3",
    "gemma": "gemma-2",
    "gemma2": "gemma-2",
    "gemma3": "gemma-3",
    "gemma4": "gemma-4-31b",
    "cohere": "command-r",
    "cohere2": "command-r7b",
    "granite": "granite-3.3",
    "granitemoehybrid": "granite-4.0",
    "gpt_oss": "gpt-oss",
    "gemma3_multimodal": "gemma-3",
    "gemma4_multimodal": "gemma-4-31b",
}


def row(name: str, folder: Path) -> list[str]:
    """The cells of a family: its name, its class, one for each column, and what is special about it."""
    family, recipe = FAMILIES[name], family_recipe(write_family(name, folder))
    llm_class = type_name(name)
    try:
        opened = Opened(folder, recipe, load_model_bundle(recipe, torch.device("cpu")))
    except UserError:
        return [name, llm_class, *["refused"] * len(COLUMNS), template(name), family.notes]
    opened.bundle.model.eval()
    return [name, llm_class, *(_cell(column, opened) for column in COLUMNS.values()), template(name), family.notes]


def _cell(column: Callable[[Opened], str], opened: Opened) -> str:
    try:
        return column(opened)
    except UserError:
        return "refused"


def template(name: str) -> str:
    """The real chat template of a family, if the tests have it."""
    if name not in TEMPLATES:
        return ""
    assert (ROOT / "tests" / "data" / "chat_templates" / f"{TEMPLATES[name]}.jinja").is_file()
    return TEMPLATES[name]


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
    head = ["family", "class", *COLUMNS, "template", "what is special"]
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
