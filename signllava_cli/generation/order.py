"""The order in which clips may be decoded."""

from collections.abc import Iterator, Sequence

from signllava_cli.data.annotations import Clip


def decoding_order(clips: Sequence[Clip], in_order: bool, batch_size: int) -> Iterator[list[Clip]]:
    """Batches of at most `batch_size` of `clips`.

    Free, they come in the order given. `in_order`, the p-th clips of all recordings are decoded together
    before any (p+1)-th: a clip meets the hypotheses of all before it in its recording, and batches are full
    as long as there are recordings.
    """
    ranks: dict[str, list[Clip]] = {}
    for clip in clips:
        ranks.setdefault(f"{clip.position:09d}" if in_order else "", []).append(clip)
    for rank in sorted(ranks):
        for start in range(0, len(ranks[rank]), batch_size):
            yield ranks[rank][start : start + batch_size]
