"""Makes the pictures of docs/evaluation.md: `python docs/images/make.py RUN`, with a RUN on the toy corpus.

`signllava demo` makes such a run. Needs Chromium.
"""

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))
from browser import opened_page  # noqa: E402

DESKTOP, PHONE = {"width": 1200, "height": 860}, {"width": 390, "height": 844}


def main(arguments: Sequence[str]) -> None:
    """Evaluate the run with all context sources, and take screenshots of the report on a desktop and on a phone."""
    (run,) = arguments
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.html"
        command = ["eval", run, "--split", "test", "--context-sources", "none,gold,predicted"]
        outputs = ["--report", str(report), "--charts", folder, "--out", folder]
        subprocess.run([sys.executable, "-m", "signllava_cli", *command, *outputs], check=True)
        with opened_page(report.as_uri(), viewport=DESKTOP, color_scheme="light") as (page, _, _):
            page: Any
            page.screenshot(path=HERE / "report.png")
            page.select_option("#sort", "gain")
            page.evaluate("document.getElementById('clips').scrollIntoView()")
            page.screenshot(path=HERE / "report-clips.png")
        with opened_page(report.as_uri(), viewport=PHONE, color_scheme="dark") as (page, _, _):
            page.evaluate("document.getElementById('charts').scrollIntoView()")
            page.screenshot(path=HERE / "report-phone.png")
        (Path(folder) / "scores.png").replace(HERE / "scores.png")


if __name__ == "__main__":
    main(sys.argv[1:])
