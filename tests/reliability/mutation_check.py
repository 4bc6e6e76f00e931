"""The mutation check: do the tests notice when the code is wrong?

    python tests/reliability/mutation_check.py [FILE ...] [--sample N] [--results FILE]

Makes the mutants of the files in `TESTS` (mutants.py), and runs the tests of its file on each. A mutant is killed if
a test fails, and survives if all pass. equivalent_mutants.yaml explains the mutants that no test can kill. The exit
code is 1 if another one survives, or if one of that list is killed.

One pytest session runs all tests once, and records which functions of these files each test calls. Then each mutant
runs in a child process of this session, which has every library and test in memory: the child replaces the code of
the changed functions, and runs the tests that call the function, the fastest first. A mutant outside of a function
that survives this runs once more, in a child that imports the package and the tests anew.
"""

import argparse
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from types import FrameType, FunctionType, ModuleType
from typing import Any

import pytest
import yaml
from _pytest.runner import runtestprotocol
from mutants import Mutant, make_mutants

ROOT = Path(__file__).parents[2]
PACKAGE = "signllava_cli"
METRICS = ["tests/evaluation/test_metrics.py"]
# The files, and the tests of each; of these tests, those that run a command or an LLM are not run.
TESTS = {
    "training/step.py": ["tests/training/test_step.py"],
    "training/engine.py": ["tests/training/test_engine.py", "tests/training/test_zero_engine.py"],
    "data/batches.py": ["tests/data/test_batches.py"],
    "data/training_set.py": ["tests/data/test_training_positions.py"],
    "model/loss.py": ["tests/model/test_loss.py"],
    "generation/search.py": ["tests/generation/test_search.py"],
    "evaluation/resampling.py": ["tests/evaluation/test_resampling.py"],
    **{
        f"evaluation/metrics/{path.name}": METRICS
        for path in sorted((ROOT / PACKAGE / "evaluation/metrics").glob("[!_]*.py"))
    },
    "evaluation/metrics/ter.py": ["tests/evaluation/test_ter.py"],
    "evaluation/metrics/evaluate_metric.py": ["tests/evaluation/test_speed.py"],
    "evaluation/metrics/bleurt.py": ["tests/evaluation/test_learned.py", "tests/evaluation/test_learned_units.py"],
    "evaluation/metrics/comet.py": ["tests/evaluation/test_learned_units.py"],
    "evaluation/metrics/meteor.py": ["tests/evaluation/test_learned_units.py"],
}
EXPLANATIONS = Path(__file__).parent / "equivalent_mutants.yaml"
MEMORY = 4 << 30  # bytes that a mutant may take more than the tests
Key = tuple[str, str, str, str]


def read_explanations(file: Path = EXPLANATIONS) -> dict[Key, str]:
    """Why no test can kill a mutant, by its key."""
    return {
        (path, entry.get("function", ""), entry["before"], after): entry["why"]
        for path, entries in (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).items()
        for entry in entries
        for after in ([entry["after"]] if isinstance(entry["after"], str) else entry["after"])
    }


# replacing the code of functions in memory

CONSTANTS = (str, int, float, tuple, list, dict, frozenset, type(None))


def replace_code(module: ModuleType, code: str) -> bool:
    """Give functions and constants of `module` the code and the values of `code`; whether all could be replaced."""
    namespace = {"__name__": module.__name__, "__file__": module.__file__, "__builtins__": __builtins__}
    exec(compile(code, str(module.__file__), "exec"), namespace)
    modules = [other for other in sys.modules.values() if is_ours(getattr(other, "__file__", None))]

    def replace_constant(name: str, value: Any) -> None:
        previous = getattr(module, name, None)
        for other in modules:  # those that have imported it, the tests too
            if vars(other).get(name) is previous:
                setattr(other, name, value)

    return _replace_members(vars(module), namespace, module, replace_constant)


def is_ours(file: str | None) -> bool:
    return file is not None and file.startswith((f"{ROOT}/{PACKAGE}/", f"{ROOT}/tests/"))


def _replace_members(
    old: Any, new: dict[str, Any], module: ModuleType, set_member: Callable[[str, Any], None]
) -> bool:
    is_complete = True
    for name, value in new.items():
        if name in ("__name__", "__file__", "__builtins__", "__doc__", "__dict__", "__weakref__", "__annotations__"):
            continue
        previous, function = old.get(name), _function(value)
        if function is not None:
            is_complete &= _replace_function(_function(previous), function)
        elif isinstance(value, type) and value.__module__ == module.__name__:
            is_complete &= isinstance(previous, type) and _replace_members(
                vars(previous), dict(vars(value)), module, partial(setattr, previous)
            )
        elif isinstance(value, CONSTANTS) and previous != value:
            with contextlib.suppress(AttributeError, TypeError):
                set_member(name, value)
    return is_complete


def _function(value: Any) -> FunctionType | None:
    """The Python function in a function, property, class method, static method or cached property."""
    if isinstance(value, property):
        value = value.fget
    elif isinstance(value, cached_property):
        value = value.func
    elif isinstance(value, classmethod | staticmethod):
        value = value.__func__
    return value if isinstance(value, FunctionType) else None


def _replace_function(old: FunctionType | None, new: FunctionType) -> bool:
    if old is None or len(old.__code__.co_freevars) != len(new.__code__.co_freevars):
        return False
    old.__code__, old.__defaults__, old.__kwdefaults__ = new.__code__, new.__defaults__, new.__kwdefaults__
    return True


# importing a mutant instead of the file


class MutantFinder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports the module of a mutant from its changed source."""

    def __init__(self, mutant: Mutant) -> None:
        self.name, self.mutant = module_name(mutant.file), mutant

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(fullname, ROOT / self.mutant.file, loader=self)

    def get_source(self, fullname: str) -> str:
        return self.mutant.code

    def get_filename(self, fullname: str) -> str:
        return str(ROOT / self.mutant.file)


def module_name(file: str) -> str:
    return file.removesuffix(".py").replace("/", ".")


def import_anew(mutant: Mutant) -> None:
    """Forget the package and the tests, so that the next import reads the mutant."""
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == PACKAGE or is_ours(getattr(module, "__file__", None)):
            del sys.modules[name]
    sys.meta_path.insert(0, MutantFinder(mutant))


# running the tests


@dataclass
class Session:
    """A pytest plugin: runs all tests once, then the tests of every mutant in child processes.

    `calls`: the functions, by file and first line, that each test calls. `seconds`: the CPU time of each test.
    """

    mutants: Sequence[Mutant]
    work: Path
    finish: Callable[[Mutant, str], None]
    items: list[pytest.Item] = field(default_factory=list)
    calls: dict[str, set[tuple[str, int]]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Failed(f"{session.testsfailed} errors while the tests were collected")
        self.items = session.items
        for item in session.items:
            self._run_recorded(item)
        relevant = [item for item in self.items if item.nodeid in self.calls]
        self.items = sorted(relevant, key=lambda item: self.seconds[item.nodeid])
        for mutant in self.mutants:
            self.finish(mutant, self._run_mutant(mutant))
        return True

    def _run_recorded(self, item: pytest.Item) -> None:
        """Run a test on the unchanged code; it must pass."""
        called: set[tuple[str, int]] = set()
        paths = {str(ROOT / PACKAGE / file): file for file in TESTS}

        def record(frame: FrameType, event: str, argument: Any) -> None:
            if event == "call" and (file := paths.get(frame.f_code.co_filename)):
                called.add((f"{PACKAGE}/{file}", frame.f_code.co_firstlineno))

        start = time.process_time()
        sys.setprofile(record)
        try:
            reports = run_reports(item)
        finally:
            sys.setprofile(None)
        outcomes = {report.outcome for report in reports}
        for report in reports:
            if report.failed:
                raise pytest.UsageError(f"{item.nodeid} fails without any mutant:\n{report.longreprtext}")
        if "skipped" not in outcomes:
            self.calls[item.nodeid], self.seconds[item.nodeid] = called, time.process_time() - start

    def _run_mutant(self, mutant: Mutant) -> str:
        """`killed`, `killed: too slow`, or `survived`."""
        tests = TESTS[mutant.file.removeprefix(f"{PACKAGE}/")]
        of_file = [item for item in self.items if item.nodeid.split("::")[0] in tests]
        first, last = mutant.lines
        calling = [
            item
            for item in of_file
            if any(file == mutant.file and first <= line <= last for file, line in self.calls[item.nodeid])
        ]
        items = calling or of_file  # a loader worker calls it, or it is called when the module is imported
        limit = 5 + 8 * sum(self.seconds[item.nodeid] for item in items)
        outcome = run_in_child(lambda: self._run_replaced(mutant, items), limit)
        if outcome != "incomplete":
            return outcome
        nodes = [item.nodeid for item in items]
        return run_in_child(lambda: self._run_imported(mutant, nodes), 60 + limit)

    def _run_replaced(self, mutant: Mutant, items: Sequence[pytest.Item]) -> int:
        """The exit code after the tests, with the changed functions in the module that is in memory."""
        module = sys.modules[module_name(mutant.file)]
        is_complete = replace_code(module, mutant.code)
        if any("failed" in run_item(item) for item in items):
            return KILLED
        return SURVIVED if is_complete and mutant.function else INCOMPLETE

    def _run_imported(self, mutant: Mutant, nodes: Sequence[str]) -> int:
        """The exit code after the tests, in a pytest session of its own that imports the mutant."""
        import_anew(mutant)
        code = pytest.main([*PYTEST_OPTIONS, "-x", f"--basetemp={self.work / 'imported'}", *nodes])
        return SURVIVED if code == pytest.ExitCode.OK else KILLED


PYTEST_OPTIONS = ["-q", "-p", "no:cacheprovider", "-m", "unit"]


def run_item(item: pytest.Item) -> set[str]:
    """The outcomes of set-up, call and tear-down of a test; fixtures of the session are kept."""
    item.repr_failure = lambda *arguments: "failed"  # type: ignore[method-assign]  # formatting takes most of the time
    return {report.outcome for report in run_reports(item)}


def run_reports(item: pytest.Item) -> list[pytest.TestReport]:
    after: Any = item.session
    return runtestprotocol(item, log=False, nextitem=after)


SURVIVED, KILLED, INCOMPLETE = range(3)
OUTCOMES = {SURVIVED: "survived", INCOMPLETE: "incomplete", -signal.SIGXCPU: "killed: too slow"}


def run_in_child(run_tests: Callable[[], int], limit: float) -> str:
    """What becomes of a mutant whose tests `run_tests` runs, in a child process of limited CPU time and memory.

    Args:
        limit: seconds of CPU time. A child that waits for something ends after 20 times as long.
    """
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        code = KILLED
        try:
            resource.setrlimit(resource.RLIMIT_AS, (_memory() + MEMORY, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit), resource.RLIM_INFINITY))
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            code = run_tests()
        finally:
            os._exit(code)
    deadline, pause = time.monotonic() + 20 * limit, 0.002
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            _kill_group(child)
            return OUTCOMES.get(os.waitstatus_to_exitcode(status), "killed")
        time.sleep(pause)
        pause = min(pause * 1.3, 0.05)
    _kill_group(child)
    os.waitpid(child, 0)
    return "killed: too slow"


def _kill_group(child: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# the check


@dataclass
class Check:
    """The outcomes of the mutants, and how the list of explanations fits them."""

    explanations: dict[Key, str]
    results: Path | None = None
    outcomes: list[tuple[Mutant, str]] = field(default_factory=list)

    def finish(self, mutant: Mutant, outcome: str) -> None:
        self.outcomes.append((mutant, outcome))
        if self.results:
            row = {
                "file": mutant.file,
                "function": mutant.function,
                "line": mutant.line,
                "before": mutant.before,
                "after": mutant.after,
                "outcome": outcome,
            }
            with self.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    @property
    def unexplained(self) -> list[Mutant]:
        return [m for m, outcome in self.outcomes if outcome == "survived" and m.key not in self.explanations]

    @property
    def wrongly_explained(self) -> list[Mutant]:
        killed = {mutant.key for mutant, outcome in self.outcomes if outcome != "survived"}
        survived = {mutant.key for mutant, outcome in self.outcomes if outcome == "survived"}
        return [m for m, _ in self.outcomes if m.key in self.explanations and m.key in killed - survived]

    def table(self) -> Iterator[str]:
        """The lines of a Markdown table: mutants, killed, explained, survived without explanation, and score."""
        yield "| File | Mutants | Killed | Explained | Not explained | Score |"
        yield "|---|---:|---:|---:|---:|---:|"
        files = list(dict.fromkeys(mutant.file for mutant, _ in self.outcomes))
        total: Counter[str] = Counter()
        for file in files:
            counts = Counter(self._kind(mutant, outcome) for mutant, outcome in self.outcomes if mutant.file == file)
            total += counts
            yield _row(f"`{file.removeprefix(PACKAGE + '/')}`", counts)
        yield _row("all", total)

    def _kind(self, mutant: Mutant, outcome: str) -> str:
        if outcome != "survived":
            return "killed"
        return "explained" if mutant.key in self.explanations else "unexplained"


def _row(name: str, counts: Counter[str]) -> str:
    tested = counts["killed"] + counts["unexplained"]
    score = f"{100 * counts['killed'] / tested:.1f} %" if tested else "-"
    return (
        f"| {name} | {counts.total():,} | {counts['killed']:,} | {counts['explained']:,} "
        f"| {counts['unexplained']:,} | {score} |"
    )


def check_mutants(mutants: Sequence[Mutant], work: Path, results: Path | None = None) -> Check:
    """Run the tests on these mutants, in one pytest session; `work` is the parent of the folders of the tests."""
    check = Check(read_explanations(), results)
    work.mkdir(parents=True, exist_ok=True)
    session = Session(mutants, work, check.finish)
    os.environ["PYTEST_XDIST_WORKER"] = "gw0"  # conftest.made_once then puts its folders beside those of a session
    tests = dict.fromkeys(test for mutant in mutants for test in TESTS[mutant.file.removeprefix(f"{PACKAGE}/")])
    code = pytest.main([*PYTEST_OPTIONS, f"--basetemp={work / 'tests'}", *tests], plugins=[session])
    if len(check.outcomes) != len(mutants):
        raise SystemExit(f"pytest ended with {code} before all mutants were tried.")
    return check


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", default=list(TESTS), metavar="FILE", help="of TESTS; all by default")
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants, chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--results", type=Path, metavar="FILE", help="append the outcome of each mutant as JSON")
    parser.add_argument("--survivors", type=Path, metavar="FILE", help="only those that survived in these results")
    parser.add_argument("--work", type=Path, metavar="FOLDER", help="keep here what the tests make once")
    options = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    mutants = [mutant for file in options.files for mutant in make_mutants(ROOT, f"{PACKAGE}/{file}")]
    if options.survivors:
        rows = [json.loads(line) for line in options.survivors.read_text().splitlines()]
        keys = {
            (row["file"], row["function"], row["before"], row["after"])
            for row in rows
            if row["outcome"] == "survived"
        }
        mutants = [mutant for mutant in mutants if mutant.key in keys]
    mutants.sort(key=lambda mutant: not mutant.function)  # those that have to be imported take longer
    if options.sample:
        mutants = random.Random(options.seed).sample(mutants, options.sample)
    with tempfile.TemporaryDirectory() as folder:
        check = check_mutants(mutants, options.work or Path(folder), options.results)
    print("\n".join(check.table()))
    for mutant in check.unexplained:
        print(f"\nsurvived: {mutant.file}:{mutant.line} in {mutant.function}\n- {mutant.before}\n+ {mutant.after}")
    for mutant in check.wrongly_explained:
        print(f"\nkilled, but explained: {mutant.file}:{mutant.line}\n- {mutant.before}\n+ {mutant.after}")
    sys.exit(bool(check.unexplained or check.wrongly_explained))


if __name__ == "__main__":
    main()
