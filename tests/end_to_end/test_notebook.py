"""The notebook is stored without outputs, and runs from its first cell to its last one."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from signllava_cli import SignLlava
from signllava_cli.api.dataset_split import open_model_split

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "translate.ipynb"


def read_notebook() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_valid_and_stored_without_outputs() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(cells) > 5
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    assert all(len(cell.source.splitlines()) <= 15 for cell in cells)


@pytest.mark.drill  # CI runs it too
def test_the_notebook_runs(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "matplotlib"))
    notebook = read_notebook()
    [parameters] = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    parameters.source = f"folder, checkpoint, split_name, clip_number = {str(tmp_path)!r}, {str(run)!r}, 'dev', 3"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    model = SignLlava.from_pretrained(run)
    split = open_model_split(model, "dev")
    clip = split.clips[3]
    expected = model.translate(split.read(clip), split.gold_context(clip, 2, 2), prelude=2)
    assert f"reference:   {clip.translation}\ntranslation: {expected.text}\n" in printed
    assert all(f"reference {other.translation}" in printed for other in split.clips if other.recording == "dev00")
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 1
