"""The card of a dataset repository on the hub: its metadata, and the statistics of `prepare describe`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import DatasetCard, DatasetCardData

from signllava_cli.prepare.describe import Description, SplitStatistics, StreamStatistics

# maximum number of clips -> size category of the hub
SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
LARGEST = "10M<n<100M"
STREAM_COLUMNS = ("stream, split", "width", "min", "median", "mean", "max", "clips without")
WITHOUT_ANNOTATION = """The texts are not included. Import them from their source (`signllava prepare --help` lists
the formats) as `annotation.SPLIT.json` into the folder of `prepare pull`, and run `signllava prepare index` there."""


@dataclass(frozen=True)
class DatasetLicense:
    """The license in the card's metadata, as the hub names it; `id` is `other` if it has only a name and a link."""

    id: str
    name: str | None = None
    link: str | None = None


def dataset_card(
    repo_id: str,
    description: Description,
    widths: Mapping[str, int],
    license: DatasetLicense,
    languages: Sequence[str],
    with_annotation: bool,
) -> DatasetCard:
    """The card of the dataset in `repo_id`.

    Args:
        widths: stream -> numbers per frame.
        languages: ISO 639 codes of the texts and the sign languages.
    """
    name = repo_id.rpartition("/")[2]
    num_clips = sum(split.clips for split in description.statistics.values())
    data = DatasetCardData(
        license=license.id,
        license_name=license.name,
        license_link=license.link,
        language=list(languages) or None,
        pretty_name=name,
        size_categories=[next((label for limit, label in SIZES.items() if num_clips < limit), LARGEST)],
        task_categories=["translation"],
        tags=["sign-language", "sign-language-translation", "signllava"],
        viewer=False,  # of the hub's page, which does not know this layout
    )
    texts = "Each sentence has its translation in `annotation.SPLIT.json`." if with_annotation else WITHOUT_ANNOTATION
    return DatasetCard(f"""---
{data.to_yaml()}
---
# {name}

Feature streams of signed sentences, for sign-language translation with signllava. `STREAM/*.h5` has a group per
recording, and in it a dataset per clip: float16, frames x width. {texts}

    signllava prepare pull {repo_id} --out data/{name}

downloads the files, checks them against `SHA256SUMS`, and builds the index.

{_table(["", *description.statistics], _split_rows(description.statistics.values()))}

Frames per clip:

{_table(STREAM_COLUMNS, _stream_rows(description, widths))}
""")


def _split_rows(splits: Iterable[SplitStatistics]) -> list[list[Any]]:
    splits = list(splits)
    return [
        ["recordings", *(split.recordings for split in splits)],
        ["clips", *(split.clips for split in splits)],
        ["hours", *(_round(split.durations.hours, "unknown") for split in splits)],
        ["words", *(split.texts.words for split in splits)],
        ["vocabulary", *(split.texts.vocabulary for split in splits)],
        ["keywords per clip", *(_round(split.texts.keywords_per_clip) for split in splits)],
        ["paraphrases per clip", *(_round(split.texts.paraphrases_per_clip) for split in splits)],
    ]


def _stream_rows(description: Description, widths: Mapping[str, int]) -> list[list[Any]]:
    return [
        [f"{name}, {split}", width, *_frame_numbers(statistics.streams[name])]
        for name, width in widths.items()
        for split, statistics in description.statistics.items()
        if name in statistics.streams
    ]


def _frame_numbers(stream: StreamStatistics) -> list[Any]:
    frames = stream.frames
    return [frames.min, frames.median, _round(frames.mean), frames.max, stream.clips_without]


def _round(number: float | None, unknown: str = "-") -> str:
    return unknown if number is None else f"{number:.2f}"


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join('-' if cell is None else str(cell) for cell in line)} |" for line in lines)
