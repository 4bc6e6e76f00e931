"""The options of `prepare pack`, and the formats that it reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from signllava_cli.errors import UserError
from signllava_cli.prepare.importers.split_names import describe_renamed_split
from signllava_cli.recipe import pattern_fields

Format = Literal["auto", "npy", "npz", "safetensors", "hdf5", "mediapipe", "pose"]

FORMAT_OF_SUFFIX = {
    ".npy": "npy",
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".json": "mediapipe",
    ".pose": "pose",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
}
KEYED_FORMATS = frozenset({"npz", "safetensors", "hdf5"})  # a file may hold several arrays
PICKLE_SUFFIXES = (".pkl", ".pickle", ".gz", ".pt", ".pth")
PICKLE_REFUSAL = "a pickle can run code when it is opened; if you trust it, convert it: numpy.save of a numeric array"

DEFAULT_PATTERN = "{recording}/{clip}"


@dataclass(frozen=True)
class PackRequest:
    """Where to search for the arrays of a stream's clips, and how large a shard may be.

    `sources` are folders with a file per clip, or HDF5 files with many clips. `pattern` is the path of a clip's file
    in such a folder, `key` the key of its array in a file with several; both may hold `{recording}`, `{clip}` and
    columns of the table that the annotation was imported from. `shard_mb` is in MiB. `layout` names the meaning of
    the numbers, and overrides that of the sources.

    Raises:
        UserError: a source is missing or is a pickle, or a pattern is invalid.
    """

    sources: tuple[Path, ...]
    format: Format = "auto"
    pattern: str | None = None
    key: str | None = None
    shard_mb: float = 1024
    layout: str | None = None

    def __post_init__(self) -> None:
        for source in self.sources:
            _require_source(source)
        if self.layout is not None and not self.layout.strip():
            raise UserError("--layout: expected a name, got an empty text.")
        files = [source for source in self.sources if source.is_file()]
        fields = _parse_fields("--key", self.key) if self.key is not None else set()
        if self.pattern is not None:
            fields_of_both = fields | _parse_fields("--pattern", self.pattern)
            if len(files) == len(self.sources):
                raise UserError("--pattern finds files in a folder, but no SOURCE is a folder; omit this option.")
            if not fields_of_both - {"recording"}:
                raise UserError(f"--pattern {self.pattern} names one file for all clips: it must hold {{clip}}.")
            self.format_of(self.pattern)
        if files and self.format not in ("auto", "hdf5"):
            raise UserError(f"{files[0]}: --format {self.format} is read from folders of files, one per clip.")
        if files and self.key is not None and not fields - {"recording"}:
            raise UserError(f"--key {self.key} names one array for all clips: it must hold {{clip}}.")

    def require_columns(self, columns: Iterable[str]) -> None:
        """Check that the patterns contain no fields but recording, clip and `columns` of the source.

        Raises:
            UserError: a field is unknown; the message lists the known ones.
        """
        known = list(dict.fromkeys(["recording", "clip", *columns]))
        for option, pattern in (("--pattern", self.pattern), ("--key", self.key)):
            for field in sorted(_parse_fields(option, pattern or "") - set(known)):
                hint = "" if known[2:] else "; import the annotation again to keep the columns of its table"
                known_fields = ", ".join(f"{{{name}}}" for name in known)
                raise UserError(f"{option} {pattern}: unknown field {{{field}}}; it may hold {known_fields}{hint}.")

    @property
    def file_patterns(self) -> tuple[str, ...]:
        """The patterns of a clip's file in a folder, in order of preference; pickles last, to be refused by name."""
        if self.pattern is not None:
            return (self.pattern,)
        suffixes = [suffix for suffix, format in FORMAT_OF_SUFFIX.items() if self.format in ("auto", format)]
        if self.format == "auto":
            suffixes += PICKLE_SUFFIXES
        return tuple(f"{stem}{suffix}" for suffix in suffixes for stem in (DEFAULT_PATTERN, "{clip}"))

    def reads(self, file: Path) -> bool:
        """Whether the suffix of `file`, in any case, is one that is searched for."""
        return any(pattern.endswith(file.suffix.lower() or "/") for pattern in self.file_patterns)

    def format_of(self, file: str) -> str:
        """The format of `file`.

        Raises:
            UserError: its suffix is unknown, or that of a pickle.
        """
        if is_pickle_name(file):
            raise UserError(f"{file} is not opened: {PICKLE_REFUSAL}.")
        if self.format != "auto":
            return self.format
        suffix = Path(file).suffix.lower()
        if suffix not in FORMAT_OF_SUFFIX:
            raise UserError(f"{file}: unknown suffix; give its --format.")
        return FORMAT_OF_SUFFIX[suffix]


def is_pickle_name(file: str) -> bool:
    """Whether `file` has the suffix of a pickle, or of an archive of one."""
    return file.lower().endswith(PICKLE_SUFFIXES)


def _require_source(source: Path) -> None:
    if not source.exists():
        raise UserError(f"No file or folder at {source}{describe_renamed_split(source)}.")
    if source.is_file() and is_pickle_name(source.name):
        raise UserError(f"{source} is not opened: {PICKLE_REFUSAL}.")


def _parse_fields(option: str, pattern: str) -> set[str]:
    """The names in braces in `pattern`.

    Raises:
        UserError: the pattern is malformed, or contains attributes, indices, conversions or format specs.
    """
    try:
        return pattern_fields(pattern)
    except ValueError as error:
        raise UserError(
            f"{option} {pattern}: may hold only {{recording}}, {{clip}} and columns of the source ({error})."
        ) from None
