#!/usr/bin/env python3
"""The structure of the packages in figures: python benchmarks/house.py [PACKAGE ...]

How long functions and files are, how many files and public names a folder has, which names two files define, how long
the longest chain of imports is, whether imports go round in circles, and how many files have a test of their name.
Everything is read from the syntax trees, nothing is imported. The last line of stdout is JSON.
"""

from __future__ import annotations

import ast
import io
import json
import statistics
import sys
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resnet", "pipelines", "serve", "jobs")
LONG = 400  # lines

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


@dataclass(frozen=True)
class Module:
    """A file of Python. name: with dots, of a package's __init__.py the package's."""

    path: Path
    root: Path

    @property
    def name(self) -> str:
        """As it is imported."""
        parts = self.path.relative_to(self.root).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def text(self) -> str:
        """The source."""
        return self.path.read_text()

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @property
    def lines(self) -> int:
        """Lines of the file."""
        return self.text.count("\n")

    def functions(self) -> Iterator[Function]:
        """All functions and methods."""
        return (node for node in ast.walk(self.tree) if isinstance(node, Function))

    def public(self) -> Iterator[Definition]:
        """Functions and classes that others may use: of the file itself, and public methods of public classes."""
        for node in self.tree.body:
            if not isinstance(node, Definition) or node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    inner for inner in node.body if isinstance(inner, Function) and not inner.name.startswith("_")
                )

    def names(self) -> set[str]:
        """Public functions and classes of the file itself."""
        return {n.name for n in self.tree.body if isinstance(n, Definition) and not n.name.startswith("_")}

    def comments(self) -> int:
        """Lines with a comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return sum(token.type == tokenize.COMMENT for token in tokens)

    def docstring_lines(self) -> int:
        """Lines of docstrings."""
        nodes = (n for n in ast.walk(self.tree) if isinstance(n, ast.Module | Definition))
        return sum(1 + (ast.get_docstring(n, clean=False) or "").count("\n") for n in nodes if ast.get_docstring(n))

    def imports(self, known: set[str]) -> set[str]:
        """The modules of `known` that are imported when this one is: not those that a function or a type imports."""
        found: set[str] = set()
        for node in _imported_at_once(self.tree.body):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif node.module is not None:
                found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        return (found & known) - {self.name}


def _imported_at_once(body: Sequence[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.unparse(node.test):
            yield from _imported_at_once([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            yield from _imported_at_once(node.body)


def modules(root: Path, packages: Sequence[str]) -> list[Module]:
    """All files of the packages."""
    return [Module(path, root) for package in packages for path in sorted((root / package).rglob("*.py"))]


def chain(found: Sequence[Module]) -> tuple[int, list[str]]:
    """Modules in the longest chain of imports, and a circle if there is one."""
    known = {module.name for module in found}
    graph = {module.name: module.imports(known) for module in found}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return 0, list(error.args[1])
    depth: dict[str, int] = {}
    for name in order:
        depth[name] = 1 + max((depth[other] for other in graph[name]), default=0)
    return max(depth.values(), default=0), []


def twice(found: Sequence[Module]) -> dict[str, list[str]]:
    """Public functions and classes that several files define, but for the entry point of a job."""
    places: defaultdict[str, list[str]] = defaultdict(list)
    for module in found:
        for name in module.names() - {"job", "main"}:
            places[name].append(module.name)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def tested_by_name(found: Sequence[Module], root: Path) -> tuple[int, int, list[str]]:
    """Files with a test of their name, files that could have one, and those that have none."""
    tests = {path.stem for path in (root / "tests").rglob("test_*.py")}
    own = [m for m in found if m.path.stem not in ("__init__", "__main__")]
    without = [m.name for m in own if f"test_{m.path.stem}" not in tests]
    return len(own) - len(without), len(own), without


def measure(found: Sequence[Module], root: Path) -> dict[str, Any]:
    """The figures of a set of files."""
    lengths = [f.end_lineno - f.lineno + 1 for m in found for f in m.functions() if f.end_lineno is not None]
    lines = [m.lines for m in found]
    public = [node for m in found for node in m.public()]
    arguments = [
        argument
        for m in found
        for f in m.functions()
        for argument in (*f.args.posonlyargs, *f.args.args, *f.args.kwonlyargs)
        if argument.arg not in ("self", "cls")
    ]
    folders: defaultdict[Path, list[Module]] = defaultdict(list)
    for m in found:
        if m.path.stem != "__init__":
            folders[m.path.parent].append(m)
    files = [len(inside) for inside in folders.values()]
    names = [len({name for m in inside for name in m.names()}) for inside in folders.values()]
    longest, circle = chain(found)
    with_test, own, without = tested_by_name(found, root)
    tests = sum(path.read_text().count("\n") for path in (root / "tests").rglob("*.py"))
    return {
        "files": len(found),
        "function lines, median and 90 %": [statistics.median(lengths), sorted(lengths)[int(0.9 * len(lengths))]],
        "file lines, median and most": [statistics.median(lines), max(lines)],
        f"files over {LONG} lines": sum(n > LONG for n in lines),
        "comment lines %": round(100 * sum(m.comments() for m in found) / sum(lines), 1),
        "docstring lines %": round(100 * sum(m.docstring_lines() for m in found) / sum(lines), 1),
        "public names with docstring %": round(100 * sum(bool(ast.get_docstring(n)) for n in public) / len(public), 1),
        "typed arguments %": round(100 * sum(a.annotation is not None for a in arguments) / max(1, len(arguments)), 1),
        "files a folder, median and most": [statistics.median(files), max(files)],
        "public names a folder, median and most": [statistics.median(names), max(names)],
        "names that two files define": twice(found),
        "longest chain of imports": longest,
        "circle of imports": circle,
        "files with a test of their name": [with_test, own],
        "files without one": without,
        "lines of tests a line of code": round(tests / sum(lines), 2),
    }


def main(argv: Sequence[str]) -> int:
    """Measure, print a line a figure, and all of it as JSON."""
    if {"-h", "--help"} & set(argv):
        print(__doc__)
        return 0
    packages = tuple(argv) or PACKAGES
    result = measure(modules(ROOT, packages), ROOT)
    for name, value in result.items():
        shown = ", ".join(value) if isinstance(value, dict | list) and all(isinstance(v, str) for v in value) else value
        print(f"{name:<42} {len(value) if isinstance(value, dict) else ''} {shown}", file=sys.stderr)
    print(json.dumps({"benchmark": "house", "packages": packages, **result}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
