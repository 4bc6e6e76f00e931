"""On a GPU: batches come from pinned memory, and nothing of ours makes the CPU wait during a micro-batch."""

import warnings

import pytest
import torch
from accelerate import Accelerator
from conftest import open_recipe_split

from signllava_cli.data.batches import training_collator
from signllava_cli.data.examples import ExampleBuilder
from signllava_cli.data.training_set import TrainingSet, training_steps
from signllava_cli.model.llm_parts import enable_activation_checkpointing
from signllava_cli.model.loading import load_model_bundle
from signllava_cli.recipe import read_recipe
from signllava_cli.training.engine import open_engine
from signllava_cli.training.optimizer import make_optimizer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("has_checkpointing", [True, False])
@pytest.mark.parametrize(("bits", "dtype"), [(16, "bfloat16"), (32, "float32")])
def test_cuda_finds_no_wait_of_ours_in_a_micro_batch(
    settings: list[str], bits: int, dtype: str, has_checkpointing: bool
) -> None:
    more = [f"llm.bits={bits}", f"llm.dtype={dtype}", "train.micro_batch_size=2", "data.num_workers=2"]
    recipe = read_recipe("toy/tiny_pretrain", [*settings, *more])
    accelerator = Accelerator()
    bundle, data = load_model_bundle(recipe, accelerator.device), recipe.data
    if has_checkpointing:
        enable_activation_checkpointing(bundle.model.llm)
    builder = ExampleBuilder(
        bundle.prompts, recipe.streams, data.max_seq_len, data.min_frames, recipe.context.prelude
    )
    examples = TrainingSet(recipe, open_recipe_split(recipe, "train"), builder)
    model = bundle.model.train()
    assert model.reuse_prefix(bundle.prompts.before_streams, data.max_seq_len)
    engine = open_engine(accelerator, model, make_optimizer(model, recipe), 1.0)
    collate = training_collator(recipe, bundle.pad_id, omit_prefix=True)
    waits: list[str] = []
    for step, batches in enumerate(training_steps(recipe, examples, 0, 2, collate, 0, 1)):
        for number, batch in enumerate(batches):
            assert batch.input_ids.is_pinned()
            assert all(stream.frames.is_pinned() for stream in batch.streams.values() if len(stream.frames))
            torch.cuda.set_sync_debug_mode("warn" if step else "default")  # the first step may initialize libraries
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    engine.forward_backward(
                        batch.to(accelerator.device), 0.1, 1.0, is_last=number == len(batches) - 1
                    )
            finally:
                torch.cuda.set_sync_debug_mode("default")
            waits += [each.filename for each in caught if "synchroniz" in str(each.message)]
        engine.step()
    # transformers looks for several sequences in a row
    assert {name.rpartition("/")[2] for name in waits} <= {"masking_utils.py"}
