"""What `prepare pack` is asked for, and which formats it reads."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Literal

from signllava_cli.errors import UserError

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
KEYED_FORMATS = frozenset({"npz", "safetensors", "hdf5"})  # a file of theirs may hold many arrays
PICKLE_SUFFIXES = (".pkl", ".pickle", ".gz", ".pt", ".pth")
PICKLE_REFUSAL = (
    "a pickle can run code when it is opened: convert it where you trust it, numpy.save of a numeric array"
)

DEFAULT_PATTERN = "{recording}/{clip}"


@dataclass(frozen=True)
class PackRequest:
    """Where the arrays of a stream's clips are looked for, and how large a shard may be.

    `sources` are folders with a file per clip, or HDF5 files with many clips. `pattern` is a clip's file in such a
    folder, `key` its array in a file that may hold many; both may hold `{recording}`, `{clip}` and columns of the
    table that the annotation was imported from. `shard_mb` is in 2**20 bytes. `layout` names what the numbers are,
    whatever the sources say.

    Raises:
        UserError: a source is not there or is a pickle, or a pattern names something else.
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
            raise UserError("--layout: expected a name, got none.")
        files = [source for source in self.sources if source.is_file()]
        fields = _fields("--key", self.key) if self.key is not None else set()
        if self.pattern is not None:
            fields_of_both = fields | _fields("--pattern", self.pattern)
            if len(files) == len(self.sources):
                raise UserError("--pattern finds files in a folder, but no SOURCE is a folder: leave it out.")
            if not fields_of_both - {"recording"}:
                raise UserError(f"--pattern {self.pattern} names one file for all clips: it must hold {{clip}}.")
            self.format_of(self.pattern)
        if files and self.format not in ("auto", "hdf5"):
            raise UserError(f"{files[0]}: --format {self.format} is read from folders of files, one per clip.")
        if files and self.key is not None and not fields - {"recording"}:
            raise UserError(f"--key {self.key} names one array for all clips: it must hold {{clip}}.")

    def require_columns(self, columns: Iterable[str]) -> None:
        """Check that the patterns name nothing but the layout's names and `columns` of the source.

        Raises:
            UserError: one does; it lists what is there.
        """
        known = list(dict.fromkeys(["recording", "clip", *columns]))
        for option, pattern in (("--pattern", self.pattern), ("--key", self.key)):
            for field in sorted(_fields(option, pattern or "") - set(known)):
                hint = "" if known[2:] else "; import the annotation again to keep the columns of its table"
                there = ", ".join(f"{{{name}}}" for name in known)
                raise UserError(f"{option} {pattern}: nothing is known as {{{field}}}; it may hold {there}{hint}.")

    @property
    def file_patterns(self) -> tuple[str, ...]:
        """Where a clip's file may lie in a folder, first choice first; pickles last, to be refused by name."""
        if self.pattern is not None:
            return (self.pattern,)
        suffixes = [suffix for suffix, format in FORMAT_OF_SUFFIX.items() if self.format in ("auto", format)]
        if self.format == "auto":
            suffixes += PICKLE_SUFFIXES
        return tuple(f"{stem}{suffix}" for suffix in suffixes for stem in (DEFAULT_PATTERN, "{clip}"))

    def format_of(self, file: str) -> str:
        """The format to read `file` in.

        Raises:
            UserError: its name does not tell, or tells that it is a pickle.
        """
        if is_pickle_name(file):
            raise UserError(f"{file} is not opened: {PICKLE_REFUSAL}.")
        if self.format != "auto":
            return self.format
        suffix = Path(file).suffix.lower()
        if suffix not in FORMAT_OF_SUFFIX:
            raise UserError(f"{file}: the name does not tell what it is; name its --format.")
        return FORMAT_OF_SUFFIX[suffix]


def is_pickle_name(file: str) -> bool:
    """Whether the name of `file` is one of a pickle, or of an archive of one."""
    return file.lower().endswith(PICKLE_SUFFIXES)


def _require_source(source: Path) -> None:
    if not source.exists():
        raise UserError(f"No file or folder at {source}.")
    if source.is_file() and is_pickle_name(source.name):
        raise UserError(f"{source} is not opened: {PICKLE_REFUSAL}.")


def _fields(option: str, pattern: str) -> set[str]:
    """The names in braces in `pattern`.

    Raises:
        UserError: it is no pattern, or asks for more than the values of names.
    """
    try:
        parsed = list(Formatter().parse(pattern))
    except ValueError as error:
        raise UserError(f"{option} {pattern}: {error}.") from None
    for _, field, spec, conversion in parsed:
        if field is not None and (spec or conversion or not field or set(field) & set(".[")):
            raise UserError(f"{option} {pattern}: may hold {{recording}}, {{clip}} and columns of the source alone.")
    return {field for _, field, _, _ in parsed if field is not None}
