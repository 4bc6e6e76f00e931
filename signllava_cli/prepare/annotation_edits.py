"""Edits texts of an annotation file; everything else is kept, and the original is backed up."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from signllava_cli.console import info, print_line
from signllava_cli.data.annotations import annotation_file
from signllava_cli.errors import MAX_NAMES, UserError, format_count
from signllava_cli.files import atomic_file, exclusive_access, read_json, write_json
from signllava_cli.recipe import is_unicode


def edit_annotation(
    root: Path,
    split: str,
    key: Literal["keywords", "paraphrases"],
    texts: Mapping[str, Sequence[str]],
    dry_run: bool = False,
) -> None:
    """Set the `key` of each clip in `texts` (clip id -> texts), and print what was written.

    The file must be valid for `read_annotations`. An unchanged file is not written. The file before the first edit is
    kept as `annotation.{split}.json.before`.

    Args:
        dry_run: print the changes without writing them.

    Raises:
        UserError: the file cannot be read or written.
    """
    file = annotation_file(root, split)
    with exclusive_access(root):  # else one of two concurrent commands would undo the edits of the other
        _write_edits(file, key, texts, dry_run)


def _write_edits(file: Path, key: str, texts: Mapping[str, Sequence[str]], dry_run: bool) -> None:
    content = read_json(file)
    changed = []
    for clip, clip_texts in texts.items():
        recording, _, name = clip.partition("/")
        entry = content[recording][name]
        if list(clip_texts) != (entry.get(key) or []):
            entry[key] = list(clip_texts)
            changed.append(clip)
    if not changed:
        info(f"{file}: nothing to change.")
    elif dry_run:
        count = format_count(len(changed), "clip")
        print_line(f"{file}: {count} would change, no file is written (--dry-run). The first ones:")
        for clip in changed[:MAX_NAMES]:
            print_line(f"  {clip}: {json.dumps(texts[clip], ensure_ascii=False)}")
    else:
        if not is_unicode(json.dumps(content, ensure_ascii=False)):
            raise UserError(
                f"{file} is not valid Unicode: it holds half a surrogate pair (\\ud800 to \\udfff); remove it."
            )
        backup = _back_up(file)
        write_json(file, content)
        info(
            f"{file}: {key} of {format_count(len(changed), 'clip')} written. The file before the first edit: {backup}"
        )


def backup_file(file: Path) -> Path:
    """The path of the backup of the annotation `file`, made before its first edit."""
    return file.with_name(file.name + ".before")


def _back_up(file: Path) -> Path:
    """The backup of `file`, created before its first edit."""
    backup = backup_file(file)
    if not backup.exists():
        with atomic_file(backup) as temporary:
            shutil.copyfile(file, temporary)
    return backup
