"""Texts put into an annotation file: all that an edit does not name stays, and the first state is kept."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from signllava_cli.console import info
from signllava_cli.data.annotations import annotation_file
from signllava_cli.errors import MAX_NAMES, UserError
from signllava_cli.files import atomic_file, exclusive_access, read_json, write_json
from signllava_cli.recipe import is_unicode


def edit_annotation(
    root: Path,
    split: str,
    key: Literal["keywords", "paraphrases"],
    texts: Mapping[str, Sequence[str]],
    dry_run: bool = False,
) -> None:
    """Give each clip named in `texts` (by its id) these texts under `key`, and say what was written.

    The file must be one that `read_annotations` accepts. A file that would not change is not written. The file as
    it was before the first edit stays beside it as `annotation.{split}.json.before`.

    Args:
        dry_run: only say what would change.

    Raises:
        UserError: the file cannot be read or written.
    """
    file = annotation_file(root, split)
    with exclusive_access(root):  # or one of two commands at once would undo what the other wrote
        _write_edits(file, key, texts, dry_run)


def _write_edits(file: Path, key: str, texts: Mapping[str, Sequence[str]], dry_run: bool) -> None:
    content = read_json(file)
    changed = []
    for clip, its_texts in texts.items():
        recording, _, name = clip.partition("/")
        entry = content[recording][name]
        if list(its_texts) != (entry.get(key) or []):
            entry[key] = list(its_texts)
            changed.append(clip)
    if not changed:
        info(f"{file}: nothing to change.")
    elif dry_run:
        info(f"{file}: {len(changed)} clips would change, nothing is written (--dry-run). The first of them:")
        for clip in changed[:MAX_NAMES]:
            info(f"  {clip}: {json.dumps(texts[clip], ensure_ascii=False)}")
    else:
        if not is_unicode(json.dumps(content, ensure_ascii=False)):
            raise UserError(f"{file} holds half a surrogate pair (\\ud800 to \\udfff), no text; take it out.")
        kept = _back_up(file)
        write_json(file, content)
        info(f"{file}: {key} of {len(changed)} clips written. The file before the first edit: {kept}")


def backup_file(file: Path) -> Path:
    """Where the annotation `file` is kept as it was before the first edit."""
    return file.with_name(file.name + ".before")


def _back_up(file: Path) -> Path:
    """The copy of `file` as it was before the first edit, made now if this is the first."""
    kept = backup_file(file)
    if not kept.exists():
        with atomic_file(kept) as temporary:
            shutil.copyfile(file, temporary)
    return kept
