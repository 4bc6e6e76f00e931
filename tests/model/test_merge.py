"""A merged LLM gives the logits of LLM and adapter, and is an ordinary model folder."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import Ended, MadeOnce, sets
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from signllava_cli.data.batches import collate_examples
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.tasks import translation_instruction
from signllava_cli.model.checkpoint import checkpoint_recipe, find_checkpoint, find_damage
from signllava_cli.model.loading import ModelBundle, load_checkpoint_bundle
from signllava_cli.prepare.indexing import open_split

Command = Callable[..., Ended]
CPU = torch.device("cpu")


@pytest.fixture
def finetuned(made_once: MadeOnce, signllava: Command, settings: list[str], tmp_path: Path) -> Path:
    """A copy of a finetuned run that was made once."""

    def make(folder: Path) -> None:
        more = ["init.projector=null", "train.learning_rate=0.02", "train.max_steps=8", f"run.output_dir={folder}"]
        ended = signllava("finetune", "-r", "toy/tiny_finetune", *sets([*settings, *more]))
        assert ended.code == 0, ended.err

    return Path(shutil.copytree(made_once("finetuned", make), tmp_path / "run", symlinks=True))


def load(checkpoint: Path, *overrides: str) -> ModelBundle:
    folder = find_checkpoint(checkpoint)
    return load_checkpoint_bundle(folder, checkpoint_recipe(folder, list(overrides)), CPU)


@torch.no_grad()
def logits(bundle: ModelBundle, checkpoint: Path) -> torch.Tensor:
    """The logits of three dev clips, of all tokens without padding: (tokens, vocabulary)."""
    recipe = checkpoint_recipe(find_checkpoint(checkpoint), [])
    split, builder = (
        open_split(recipe.data, recipe.streams, "dev"),
        ExampleBuilder(
            bundle.prompts, recipe.streams, recipe.data.max_seq_len, recipe.data.min_frames, recipe.context.prelude
        ),
    )
    examples = [
        builder.build(clip.id, split.read(clip), translation_instruction(recipe.tasks, clip.translation), [])
        for clip in split.clips[:3]
    ]
    batch = collate_examples(examples, recipe.streams, bundle.pad_id, "right")
    all_logits = bundle.model.llm(inputs_embeds=bundle.model.embed(batch), attention_mask=batch.attention_mask).logits
    return all_logits[batch.attention_mask.bool()]


def test_the_merged_llm_has_the_logits_of_llm_and_adapter(
    signllava: Command, finetuned: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    ended = signllava("checkpoint", "merge", finetuned, "--out", out, "--dtype", "float32")
    assert ended.code == 0, ended.err
    assert "warning: the adapter was trained on the LLM in 4 bits" in ended.out
    assert find_damage(find_checkpoint(out)) is None
    merged = logits(load(out), out)
    unmerged = logits(load(finetuned, "llm.bits=32", "llm.dtype=float32"), finetuned)
    torch.testing.assert_close(merged, unmerged, rtol=1e-3, atol=1e-3)
    in_4_bits, without_adapter = logits(load(finetuned), finetuned), logits_without_adapter(finetuned)
    assert not torch.allclose(merged, in_4_bits, rtol=1e-3, atol=1e-3)
    distance_4_bits, distance_without = (float((merged - other).norm()) for other in (in_4_bits, without_adapter))
    assert distance_4_bits < 0.5 * float(merged.norm())
    assert distance_4_bits < distance_without  # the effect of the adapter is larger than that of rounding to 4 bits


def logits_without_adapter(checkpoint: Path) -> torch.Tensor:
    bundle = load(checkpoint, "llm.bits=32", "llm.dtype=float32")
    with bundle.model.llm.disable_adapter():
        return logits(bundle, checkpoint)


def test_a_merged_folder_has_a_hugging_face_model_and_a_checkpoint(
    signllava: Command, finetuned: Path, tiny_llm: Path, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    assert signllava("checkpoint", "merge", finetuned, "--out", out).code == 0
    llm = AutoModelForCausalLM.from_pretrained(out / "llm", dtype="auto")
    assert llm.dtype == torch.bfloat16
    assert {path.suffix for path in (out / "llm").iterdir()} <= {".json", ".safetensors", ".jinja"}
    before, after = AutoTokenizer.from_pretrained(tiny_llm), AutoTokenizer.from_pretrained(out / "llm")
    assert after.chat_template == before.chat_template
    assert after("What is signed?").input_ids == before("What is signed?").input_ids
    original = AutoModelForCausalLM.from_pretrained(tiny_llm, dtype=torch.bfloat16).state_dict()
    changed = {name for name, weight in llm.state_dict().items() if not torch.equal(weight, original[name])}
    assert changed
    assert all(name.endswith("_proj.weight") for name in changed)
    source, checkpoint = find_checkpoint(finetuned), find_checkpoint(out)
    adapter = load_file(source / "adapter" / "adapter_model.safetensors")
    stored = AutoModelForCausalLM.from_pretrained(tiny_llm, dtype=torch.float32).state_dict()
    for name in changed:  # each sum was rounded once; alpha and r are both 16
        a, b = (adapter[f"base_model.model.{name.removesuffix('.weight')}.lora_{part}.weight"] for part in "AB")
        assert torch.equal(llm.state_dict()[name], (stored[name] + b @ a).to(torch.bfloat16))
    source_recipe, recipe = checkpoint_recipe(source, []), checkpoint_recipe(checkpoint, [])
    assert recipe.llm.path == str(out / "llm")
    assert (recipe.llm.bits, recipe.lora.enabled) == (16, False)
    assert (recipe.tasks, recipe.streams, recipe.context) == (
        source_recipe.tasks,
        source_recipe.streams,
        source_recipe.context,
    )
    expected, projectors = (load_file(folder / "projector.safetensors") for folder in (source, checkpoint))
    assert expected.keys() == projectors.keys()
    assert all(torch.equal(expected[name], projectors[name]) for name in expected)
    ended = signllava("generate", "-c", out, "--split", "dev")
    assert ended.code == 0, ended.err
    assert list(out.glob("predictions/step-*/predictions.jsonl"))


def test_checkpoints_that_cannot_be_merged_give_one_line_errors(
    signllava: Command, settings: list[str], finetuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def assert_refused(*arguments: object, message: str) -> None:
        ended = signllava("checkpoint", "merge", *arguments)
        assert ended.code == 2, ended.out
        assert len(ended.err.strip().splitlines()) == 1
        assert message in ended.err

    out = tmp_path / "merged"
    run = sets([*settings, f"run.output_dir={tmp_path / 'projectors'}", "train.max_steps=1"])
    assert signllava("pretrain", "-r", "toy/tiny_pretrain", *run).code == 0
    assert_refused(tmp_path / "projectors", "--out", out, message="has no adapter")
    assert_refused(finetuned, "--out", finetuned, message="not empty")
    (adapter,) = find_checkpoint(finetuned).glob("adapter/*.safetensors")
    content = adapter.read_bytes()
    adapter.write_bytes(content[: len(content) // 2])
    assert_refused(finetuned, "--out", out, message="not a valid safetensors file")
    adapter.write_bytes(content)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))  # a real full disk needs root
    assert_refused(finetuned, "--out", out, message="GB free")
    assert not out.exists()
