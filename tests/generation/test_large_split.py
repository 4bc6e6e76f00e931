"""What a rank holds of a split of very many clips: arrays, no Python objects for each clip."""

import json
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from signllava_cli.data.index import Index
from signllava_cli.data.index_validation import CHECKSUM, FORMAT, HEAD, VOCABULARY, compute_checksum
from signllava_cli.data.split import Split
from signllava_cli.data.work_shard import WorkShard
from signllava_cli.generation.context_source import ContextSource, read_prepared_context
from signllava_cli.generation.generate import _decode_source
from signllava_cli.recipe import Stream, read_recipe

NUM_CLIPS, CLIPS_PER_RECORDING = 60_000, 25
CONTEXT_BYTES, SCHEDULING_BYTES = 80, 64  # per clip, at most; a Python string takes 49 beside its text
PEAK_BYTES = 200  # per clip, at most, while a predictions file is read


def text_of(row: int) -> str:
    return f"Hypothesis number {row}."


def write_index(file: Path) -> None:
    """Write an index whose columns are those that prepare/indexing.py writes."""
    rows, text = range(NUM_CLIPS), pa.large_string()
    zeros = np.zeros(NUM_CLIPS, np.int32)
    columns = {
        "recording": pa.array([f"recording{row // CLIPS_PER_RECORDING:06d}" for row in rows], text),
        "clip": pa.array([f"clip{row:07d}" for row in rows], text),
        "position": pa.array([row % CLIPS_PER_RECORDING for row in rows], pa.int32()),
        "translation": pa.array([f"Reference {row}." for row in rows], text),
        "paraphrases": pa.array([[]] * NUM_CLIPS, pa.large_list(text)),
        "keywords": pa.array([[]] * NUM_CLIPS, pa.large_list(text)),
        "context_bound": pa.nulls(NUM_CLIPS, text),
        "start": pa.nulls(NUM_CLIPS, pa.float64()),
        "end": pa.nulls(NUM_CLIPS, pa.float64()),
        "mae/frames": pa.array(np.random.default_rng(0).integers(1, 200, NUM_CLIPS, np.int32)),
        "mae/width": pa.array(zeros + 4),
        "mae/file": pa.array(zeros),
        "mae/group": pa.array(zeros - 1),
        "mae/offset": pa.array(zeros.astype(np.int64)),
    }
    source = {"path": "x", "size": 0, "mtime_ns": 0}
    hashed = {**source, "sha256": ""}
    files = [{**source, "sample": ""}]
    stream: dict[str, Any] = {"pattern": None, "metadata": hashed, "files": files, "layout": None, "groups": []}
    head = {
        "format": FORMAT,
        "split": "train",
        "annotation": hashed,
        "unique_names": True,
        "streams": {"mae": stream},
    }
    metadata: dict[Any, Any] = {HEAD: json.dumps(head), VOCABULARY: "[]"}
    table = pa.table(columns).replace_schema_metadata(metadata)
    for _ in range(2):  # the checksum is that of the table as it is read
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        with pa.memory_map(str(file)) as written:
            checksum = compute_checksum(pa.ipc.open_file(written).read_all())
        table = table.replace_schema_metadata({**metadata, CHECKSUM: checksum})


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("large")
    write_index(folder / "index.train.arrow")
    return Split(Index(folder / "index.train.arrow", folder), "train", {"mae": Stream(width=4)})


class Memory:
    """Bytes per clip that Python and Arrow have allocated in the block: `kept` at its end, `peak` of Python."""

    def __enter__(self) -> "Memory":
        tracemalloc.start()
        self.start = tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes()
        return self

    def measure(self) -> None:
        current, peak = tracemalloc.get_traced_memory()
        self.kept = (current + pa.total_allocated_bytes() - self.start) / NUM_CLIPS
        self.peak = peak / NUM_CLIPS

    def __exit__(self, *error: object) -> None:
        tracemalloc.stop()


@pytest.mark.drill
def test_prepared_context_takes_little_more_than_its_text(split: Split, tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    with open(file, "w") as lines:
        for row in range(NUM_CLIPS):
            recording, clip = split.index.id(row).split("/")
            texts = {"task": "translation", "reference": f"Reference {row}.", "hypothesis": text_of(row)}
            line = {"recording": recording, "clip": clip, "position": row % CLIPS_PER_RECORDING}
            lines.write(json.dumps(line | texts) + "\n")
    with Memory() as memory:
        context = read_prepared_context(str(file), split, "context.source")
        memory.measure()
    assert memory.kept < CONTEXT_BYTES
    assert memory.peak < PEAK_BYTES
    source = ContextSource.open(f"prepared:{file}", 2, 1, split)
    row = NUM_CLIPS - CLIPS_PER_RECORDING
    sentences = source.sentences(split.index.clip(row + 5), split, {})  # type: ignore[arg-type]
    assert sentences == [text_of(row), text_of(row + 3), text_of(row + 4)]
    assert context


@dataclass
class DecodingStarted(Exception):
    """Raised at the first decoded token; `ids` are the clips in the decoder."""

    ids: list[str]


@dataclass
class StartingDecoder:
    """A decoder that measures memory when it starts, and ends there."""

    memory: Memory
    active: list[Any] = field(default_factory=list)

    def admit(self, examples: list[Any]) -> None:
        self.active += examples

    def step(self) -> None:
        self.memory.measure()
        raise DecodingStarted([example.id for example in self.active])


@pytest.mark.drill
@pytest.mark.parametrize("name", ["none", "predicted"])
def test_the_queues_of_decoding_are_arrays(split: Split, tmp_path: Path, name: str) -> None:
    """The longest clips come first; under predicted context, the first clips of recordings."""
    recipe = read_recipe("toy/tiny_pretrain", ["generate.batch_size=8"])
    memory = Memory()
    job = SimpleNamespace(
        recipe=recipe,
        split=split,
        num_embeddings=split.count_embeddings()["mae"],
        frames=SimpleNamespace(read_all=lambda clips: [{}] * len(clips)),
        instructions=SimpleNamespace(task="translation", for_clip=lambda clip: "translate"),
        builder=SimpleNamespace(build=lambda clip_id, *rest, **options: SimpleNamespace(id=clip_id, seq_len=1)),
        decoder=StartingDecoder(memory),
    )
    source = ContextSource.open(name, 2, 2, split)
    predictions = SimpleNamespace(rows={}, folder=tmp_path, append=lambda rows: None)
    with pytest.raises(DecodingStarted) as started, memory:
        _decode_source(job, source, predictions, WorkShard(1, 2), False)  # type: ignore[arg-type]
    assert memory.kept < SCHEDULING_BYTES
    rows = [int(id_.rsplit("clip", 1)[1]) for id_ in started.value.ids]
    assert len(set(rows)) == recipe.generate.batch_size
    if name == "none":
        assert min(job.num_embeddings[rows]) == max(job.num_embeddings)
    else:
        assert {row % CLIPS_PER_RECORDING for row in rows} == {0}
