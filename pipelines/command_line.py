"""The border between a person's command line and typed objects: overrides, errors in one sentence, one JSON outcome."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

from resnet.host.closed_pipe import quiet_when_closed

Model = TypeVar("Model", bound=BaseModel)
RIVALS = (("recipe.epochs", "recipe.steps"),)  # options that say the same thing in two ways


def parse_arguments(kind: type[Model], default: Model | None, argv: Sequence[str], description: str | None) -> Model:
    """An object of `kind`, with the dotted overrides of argv over `default`. --help prints and exits.

    Raises ValueError with one sentence for an unknown name or a value that is not allowed.
    """
    import tyro

    if default is not None:
        default = _without_rivals(default, argv)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            parsed = tyro.cli(kind, default=default, args=list(argv), description=description)
    except SystemExit as end:
        if not end.code:
            raise
        raise ValueError(_first_paragraph(complaint.getvalue())) from None
    assert parsed is not None
    return parsed


def _without_rivals(default: Model, argv: Sequence[str]) -> Model:
    """The default without what an option of argv takes the place of: what is given wins. ValueError: both are given."""
    given = {word.partition("=")[0][2:].replace("-", "_") for word in argv if word.startswith("--")}
    for pair in RIVALS:
        named = [name for name in pair if name in given]
        if len(named) > 1:
            raise ValueError(f"one of {' and '.join(named)} must be given, got both")
        for other in set(pair) - set(named) if named else ():
            default = _without(default, other.split("."))
    return default


def _without(model: Model, path: Sequence[str]) -> Model:
    """A copy whose field at a path of names is None; the same where it has no such field."""
    if path[0] not in type(model).model_fields:
        return model
    inner = None if len(path) == 1 else _without(getattr(model, path[0]), path[1:])
    return model.model_copy(update={path[0]: inner})


def parse_after_model(kind: type[Model], argv: Sequence[str], description: str | None) -> tuple[str, Model]:
    """The model that the first word names, and an object of `kind` from the options behind it."""
    name = argv[0] if argv and not argv[0].startswith("-") else None
    asked = parse_arguments(kind, None, argv[1:] if name else argv, description)
    if name is None:
        raise ValueError("MODEL must come first: a checkpoint, a registered model such as resnet@champion, or weights")
    return name, asked


def parse_some(kind: type[Model], argv: Sequence[str]) -> tuple[Model, list[str]]:
    """An object of `kind` from the words that are its own, and the words that are left for others."""
    names = [f"--{name.replace('_', '-')}" for name in kind.model_fields]
    mine: list[str] = []
    rest: list[str] = []
    target = rest
    for word in argv:
        if word.startswith("--"):
            target = mine if word.partition("=")[0].replace("_", "-") in names else rest
        target.append(word)
    return parse_arguments(kind, None, mine, None), rest


def _first_paragraph(box: str) -> str:
    """The sentence inside tyro's framed message."""
    lines = [line.strip("│ ").strip() for line in box.splitlines() if line.startswith("│")]
    rule = next((i for i, line in enumerate(lines) if line.startswith("──")), len(lines))
    text = " ".join(lines[:rule]).replace("Error parsing ", "")
    hint = [line for line in lines[rule:] if line.startswith("--")]
    if text.startswith("Unrecognized") and hint:
        text += f"; near it: {', '.join(h.split()[0].rstrip(',') for h in hint)}"
    return re.sub(r"\s+", " ", text) or "wrong arguments, see --help"


def _show_help(job: Callable[[list[str]], Any]) -> NoReturn:
    """Print the help and exit; quietly too where a reader such as `head` has closed the pipe."""
    with quiet_when_closed(), contextlib.suppress(SystemExit):
        job(["--help"])
    sys.exit(0)


def run_job(job: Callable[[list[str]], dict[str, Any] | BaseModel | None]) -> None:
    """Run a job as the main program: its outcome is one line of JSON, the last on stdout; all else goes to stderr.

    A ValueError is a user's mistake: one sentence, exit status 2. Ctrl-C: exit status 130.
    """
    prog = sys.argv[0].rsplit("/", 1)[-1]
    try:
        if {"-h", "--help"} & set(sys.argv[1:]):
            _show_help(job)
        with contextlib.redirect_stdout(sys.stderr):
            outcome = job(sys.argv[1:])
    except ValueError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{prog}: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)
    if outcome is not None:
        row = outcome.model_dump(mode="json") if isinstance(outcome, BaseModel) else outcome
        with quiet_when_closed():
            print(json.dumps(row), flush=True)
