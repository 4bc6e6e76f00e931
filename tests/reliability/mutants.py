"""Mutants of a source file: copies that differ in one operator, constant, argument, condition or statement."""

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Operators of each kind of node, by the text between their operands, and what each is replaced with.
BINARY = {
    "+": ["-"],
    "-": ["+"],
    "*": ["/"],
    "/": ["*"],
    "//": ["/"],
    "%": ["//"],
    "**": ["*"],
    "&": ["|"],
    "|": ["&"],
    "^": ["&"],
    "<<": [">>"],
    ">>": ["<<"],
}
COMPARISONS = {
    "==": ["!="],
    "!=": ["=="],
    "<": ["<=", ">="],
    "<=": ["<", ">"],
    ">": [">=", "<="],
    ">=": [">", "<"],
    "is not": ["is"],
    "not in": ["in"],
    "is": ["is not"],
    "in": ["not in"],
}
BOOLEAN = {"and": ["or"], "or": ["and"]}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}
NAMES |= {"argmax": "argmin", "argmin": "argmax", "floor": "ceil", "ceil": "floor", "cumsum": "cumprod"}


@dataclass(frozen=True)
class Mutant:
    """One change of a file.

    `function`: the outermost function or method that contains it, as `Class.method`; empty at the level of the
    module or of a class. `lines`: the first and last line of that function. `before`, `after`: the changed lines,
    with single spaces. `line`: the number of the first changed line. `code`: the whole changed file.
    """

    file: str
    function: str
    lines: tuple[int, int]
    line: int
    before: str
    after: str
    code: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What identifies it as long as its lines do not change, wherever they move."""
        return self.file, self.function, self.before, self.after


def make_mutants(root: Path, file: str) -> list[Mutant]:
    """All mutants of `file`, a path below `root`, in the order of its lines; each of them compiles."""
    source = (root / file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    maker = _Maker(source)
    maker.visit(tree)
    functions = list(_functions(tree, ""))
    mutants: dict[str, Mutant] = {}
    for start, end, text in maker.changes:
        code = (maker.source[:start] + text.encode() + maker.source[end:]).decode()
        if code == source or code in mutants or not _compiles(code):
            continue
        line, before, after = _changed_lines(source.splitlines(), code.splitlines())
        name, lines = next(
            ((name, lines) for name, lines in functions if lines[0] <= line <= lines[1]), ("", (line, line))
        )
        mutants[code] = Mutant(file, name, lines, line, before, after, code)
    return sorted(mutants.values(), key=lambda mutant: mutant.line)


class _Maker(ast.NodeVisitor):
    """Collects changes: the bytes from `start` to `end` of the file become another text."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.line_starts = [0]
        for line in self.source.splitlines(keepends=True):
            self.line_starts.append(self.line_starts[-1] + len(line))
        self.changes: list[tuple[int, int, str]] = []

    # positions and texts

    def start(self, node: ast.AST) -> int:
        return self.line_starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]

    def end(self, node: ast.AST) -> int:
        return self.line_starts[node.end_lineno - 1] + node.end_col_offset  # type: ignore[attr-defined]

    def text(self, node: ast.AST) -> str:
        return self.source[self.start(node) : self.end(node)].decode()

    def replace(self, node: ast.AST, text: str) -> None:
        self.changes.append((self.start(node), self.end(node), text))

    def replace_operator(self, left: ast.AST, right: ast.AST, operators: dict[str, list[str]]) -> None:
        start, end = self.end(left), self.start(right)
        between = self.source[start:end].decode()
        for operator in sorted(operators, key=len, reverse=True):
            if operator in between:
                for other in operators[operator]:
                    self.changes.append((start, end, between.replace(operator, other, 1)))
                return

    # which nodes are not changed: imports, annotations, decorators, docstrings, what only type checkers read

    def visit_Import(self, node: ast.Import) -> None:
        pass

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        pass

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pass  # Python 3.11 has wrong positions inside f-strings

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        for default in [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]:
            self.visit(default)
        for statement in node.body:
            self.visit(statement)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for statement in node.body:
            self.visit(statement)

    # statements

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if not isinstance(node.value, ast.Yield):
            self.replace(node, "pass")
        self.visit(node.value)

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is not None and self.text(node.value) != "None":
            self.replace(node.value, "None")
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if self.text(node.value) != "None":
            self.replace(node.value, "None")
        for target in node.targets:
            self.visit(target)
        self.visit(node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            if self.text(node.value) != "None":
                self.replace(node.value, "None")
            self.visit(node.value)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.replace_operator(node.target, node.value, BINARY)
        self.changes.append((self.end(node.target), self.start(node.value), " = "))
        self.visit(node.target)
        self.visit(node.value)

    def visit_If(self, node: ast.If) -> None:
        if self.text(node.test) == "TYPE_CHECKING":
            return
        self.replace(node.test, f"not ({self.text(node.test)})")
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        if self.text(node.test) != "True":
            self.replace(node.test, f"not ({self.text(node.test)})")
            self.visit(node.test)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    def visit_Break(self, node: ast.Break) -> None:
        self.replace(node, "continue")

    def visit_Continue(self, node: ast.Continue) -> None:
        self.replace(node, "break")

    # expressions

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self.replace_operator(node.left, node.right, BINARY)
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        for left, right in itertools.pairwise(node.values):
            self.replace_operator(left, right, BOOLEAN)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right in itertools.pairwise(operands):
            self.replace_operator(left, right, COMPARISONS)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self.replace(node, f"({self.text(node.operand)})")
        self.visit(node.operand)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.replace(node, f"({self.text(node.body)})")
        self.replace(node, f"({self.text(node.orelse)})")
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self.replace(node, str(not value))
        elif isinstance(value, int):
            self.replace(node, str(value + 1))
            self.replace(node, f"({value - 1})" if value < 1 else str(value - 1))
        elif isinstance(value, float):
            self.replace(node, str(value + 1.0))
        elif isinstance(value, str):
            self.replace(node, repr(f"XX{value}XX"))

    def visit_Slice(self, node: ast.Slice) -> None:
        for bound in (node.lower, node.upper, node.step):
            if bound is not None:
                self.replace(bound, "")
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for condition in node.ifs:
            self.replace(condition, "True")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if node.id in NAMES and isinstance(node.ctx, ast.Load):
            self.replace(node, NAMES[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in NAMES:
            self.changes.append((self.end(node) - len(node.attr), self.end(node), NAMES[node.attr]))
        self.visit(node.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.drop_arguments(sorted([*node.args, *node.keywords], key=self.start))
        if len(node.args) > 1:
            first, second = node.args[:2]
            between = self.source[self.end(first) : self.start(second)].decode()
            self.changes.append((self.start(first), self.end(second), self.text(second) + between + self.text(first)))
        self.visit(node.func)
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
            self.visit(value)

    def drop_arguments(self, arguments: Sequence[ast.AST]) -> None:
        for number, argument in enumerate(arguments):
            is_bare_generator = isinstance(argument, ast.GeneratorExp) and len(arguments) == 1
            if number + 1 < len(arguments):
                self.changes.append((self.start(argument), self.start(arguments[number + 1]), ""))
            elif number:
                self.changes.append((self.end(arguments[number - 1]), self.end(argument), ""))
            else:
                self.replace(argument, "()" if is_bare_generator else "")


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """The outermost functions and methods, with their first line, decorators included, and their last line."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            yield f"{prefix}{node.name}", (first, node.end_lineno or node.lineno)


def _compiles(code: str) -> bool:
    try:
        compile(code, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def _changed_lines(before: list[str], after: list[str]) -> tuple[int, str, str]:
    """The number of the first line that differs, and the lines that differ on either side, with single spaces."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    texts = (" ".join(" ".join(lines[start : len(lines) - end]).split()) for lines in (before, after))
    return start + 1, *texts  # type: ignore[return-value]
