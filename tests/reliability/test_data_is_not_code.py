"""Nothing in the package runs data as code: by its source, and by files that would, if they were unpickled."""

import ast
import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import Ended

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "signllava_cli").rglob("*.py"))
Command = Callable[..., Ended]
NOT_RUN = pytest.mark.reliability("Security", "data is never run as code: no pickle, no eval, safe YAML")

# What a file may not name: modules, and functions of modules, as they are called.
MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "imp"}
CALLS = {
    *("eval", "exec", "compile", "__import__", "execfile"),
    *("yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all", "yaml.full_load_all"),
    *("numpy.load", "np.load", "numpy.fromfile", "pandas.read_pickle", "pd.read_pickle", "torch.hub.load"),
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "tempfile.mktemp"),
    *("importlib.import_module", "importlib.util.spec_from_file_location", "runpy.run_path", "runpy.run_module"),
    *("code.interact", "pty.spawn", "tarfile.open", "shutil.unpack_archive"),
}
SAFE_LOADERS = {"yaml.SafeLoader", "yaml.CSafeLoader", "SafeLoader"}


def unsafe_nodes(source: str) -> list[str]:
    """What a source names that could run data as code, each as `line: what`."""
    tree = ast.parse(source)
    safe_loaders = SAFE_LOADERS | {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and {ast.unparse(base) for base in node.bases} & SAFE_LOADERS
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        found += [f"{node.lineno}: import {name}" for name in names if name.split(".")[0] in MODULES or name in CALLS]  # type: ignore[attr-defined]
        if isinstance(node, ast.Call):
            found += [f"{node.lineno}: {reason}" for reason in unsafe_call(node, safe_loaders)]
    return found


def unsafe_call(node: ast.Call, safe_loaders: set[str]) -> list[str]:
    name = ast.unparse(node.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
    conditions = {
        name: name in CALLS or name.endswith(".extractall"),
        f"{name}(shell=...)": "shell" in keywords,
        f"{name}(trust_remote_code=...)": keywords.get("trust_remote_code", "False") != "False",
        f"{name}(allow_pickle=...)": keywords.get("allow_pickle", "False") != "False",
        "torch.load without weights_only": name in ("torch.load", "load") and keywords.get("weights_only") != "True",
        "yaml.load without a safe loader": name == "yaml.load" and keywords.get("Loader") not in safe_loaders,
        "yaml.compose without a safe loader": name == "yaml.compose" and keywords.get("Loader") not in safe_loaders,
    }
    return [reason for reason, is_unsafe in conditions.items() if is_unsafe]


@NOT_RUN
def test_no_source_runs_data_as_code(record_property: Callable[[str, object], None]) -> None:
    found = {str(path.relative_to(ROOT)): unsafe for path in FILES if (unsafe := unsafe_nodes(path.read_text()))}
    assert not found
    record_property("source files", len(FILES))


@NOT_RUN
@pytest.mark.parametrize(
    "source",
    [
        *(
            "import pickle",
            "from joblib import load",
            "import yaml\nyaml.load(text)",
            "yaml.load(t, Loader=yaml.Loader)",
        ),
        *("eval(text)", "np.load(file, allow_pickle=True)", "read(file, allow_pickle=flag)", "torch.load(file)"),
        *("subprocess.run(text, shell=True)", "tempfile.mktemp()", "load_llm(path, trust_remote_code=True)"),
        *("torch.load(file, weights_only=False)", "archive.extractall()", "from tempfile import mktemp"),
    ],
)
def test_unsafe_sources_are_recognized(source: str) -> None:
    assert unsafe_nodes(source)


class Malicious:
    """Creates a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


def malicious_contents(folder: Path) -> dict[str, bytes]:
    """Pickles as they are, in an array, in a zip file of NumPy and of PyTorch; and YAML that names a function."""
    plain, array, npz, zipped, legacy = pickle.dumps(Malicious(folder)), *(io.BytesIO() for _ in range(4))
    objects = np.array([Malicious(folder)], dtype=object)
    np.save(array, objects, allow_pickle=True)
    np.savez(npz, objects)
    torch.save({"a": Malicious(folder)}, zipped)
    torch.save({"a": Malicious(folder)}, legacy, _use_new_zipfile_serialization=False)
    text = f"!!python/object/apply:os.mkdir ['{folder}']\n".encode()
    return {
        "pickle": plain,
        "npy": array.getvalue(),
        "npz": npz.getvalue(),
        "pt": zipped.getvalue(),
        "legacy pt": legacy.getvalue(),
        "yaml": text,
    }


# Where a command reads a file that somebody else may have made: the words of the command, `{file}` being that file.
READERS = {
    "recipe": ("recipes", "validate", "{file}.yaml"),
    "recipe of Sign_LLaVA": ("recipes", "import", "{file}.yaml"),
    "recipe of training": ("pretrain", "--recipe", "{file}.yaml"),
    "launch profile": ("pretrain", "--recipe", "toy/tiny_pretrain", "--launch", "{file}.yaml"),
    "table": ("prepare", "csv", "-a", "{file}.csv", "--out", "{out}"),
    "How2Sign": ("prepare", "how2sign", "-a", "{file}.csv", "--out", "{out}", "--split", "train"),
    "OpenASL": ("prepare", "openasl", "-a", "{file}.tsv", "--out", "{out}"),
    "Phoenix14T": ("prepare", "phoenix14t", "-a", "{file}.csv", "--out", "{out}", "--split", "train"),
    "captions": ("prepare", "youtube-asl", "-a", "{file}.vtt", "--out", "{out}", "--split", "train"),
    "features": ("prepare", "pack", "{folder}", "--stream", "x", "--split", "train", "--out", "{data}"),
    "shards to link": ("prepare", "link", "{file}.h5", "--stream", "x", "--split", "train", "--out", "{data}"),
    "predictions": ("eval", "{file}.jsonl"),
    "predictions of Sign_LLaVA": ("eval", "{file}.json"),
    "texts": ("eval", "--references", "{file}.txt", "{file}.txt", "--samples", "0"),
    "checkpoint": ("checkpoint", "inspect", "{folder}"),
    "checkpoint to convert": ("checkpoint", "convert", "{file}.pt", "--out", "{out}"),
    "safetensors to convert": ("checkpoint", "convert", "{file}.safetensors", "--out", "{out}"),
    "paraphrases": ("prepare", "paraphrases", "{file}.json", "{data}", "--split", "train"),
    "run to plot": ("plot", "{folder}"),
}


@pytest.mark.drill
@NOT_RUN
def test_malicious_files_run_nothing_in_any_reader(
    signllava: Command,
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    created = tmp_path / "created"
    monkeypatch.chdir(tmp_path)
    tried = 0
    for content in malicious_contents(created).values():
        folder = tmp_path / f"files{tried}"
        folder.mkdir()
        suffixes = (".yaml", ".csv", ".tsv", ".vtt", ".h5", ".jsonl", ".json", ".txt", ".pt", ".safetensors", ".npy")
        names = [f"x{suffix}" for suffix in suffixes] + ["metrics.jsonl", "recipe.yaml", "config.json"]
        for name in [*names, "projector.safetensors", "progress.json", "train00-01.npy", "train00-02.npz"]:
            (folder / name).write_bytes(content)
        data = Path(
            shutil.copytree(corpus, tmp_path / f"data{tried}", ignore=shutil.ignore_patterns("*.h5", "index.*"))
        )
        values = {"file": folder / "x", "folder": folder, "out": tmp_path / f"out{tried}", "data": data}
        for reader, words in READERS.items():
            ended = signllava(*(word.format_map(values) for word in words))
            assert not created.exists(), (reader, words)
            assert ended.code in (0, 2), (reader, ended.err)
            tried += 1
        for name in ("annotation.train.json", "mae/metadata_mae.train.json"):
            (data / name).write_bytes(content)
        for command in ("check", "index", "describe", "keywords"):
            ended = signllava("prepare", command, data, *(("--split", "train") if command == "keywords" else ()))
            assert ended.code == 2, (command, ended.out)
            tried += 1
        assert not created.exists()
    record_property("malicious files read", tried)


def test_the_malicious_files_do_run_when_they_are_unpickled(tmp_path: Path) -> None:
    """Otherwise the test above could not fail."""
    for name, content in malicious_contents(tmp_path / "created").items():
        if name == "pickle":
            pickle.loads(content)  # noqa: S301 (our own bytes)
        elif name in ("npy", "npz"):
            loaded = np.load(io.BytesIO(content), allow_pickle=True)
            assert loaded.shape == (1,) if name == "npy" else loaded["arr_0"].shape == (1,)
        elif name == "yaml":
            assert yaml.unsafe_load(content) is None
        else:
            torch.load(io.BytesIO(content), weights_only=False)
        (tmp_path / "created").rmdir()
