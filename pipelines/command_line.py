"""The border between a person's command line and typed objects: overrides, errors in one sentence, one JSON outcome."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel

from pipelines import stop_signals
from pipelines.data_settings import Data
from pipelines.file_names import without_secrets_in
from pipelines.job_notice import End, JobNotice, take_address
from pipelines.run import Run
from resnet.host.closed_pipe import quiet_when_closed

Model = TypeVar("Model", bound=BaseModel)
TRACEBACK = "RESNET_TRACEBACK"  # environment variable: show where errors that are explained come from
MOST = 500  # characters of a library's words
OURS = re.compile(r"^.*/(?=(?:resnet|pipelines|serve|jobs)/[\w/]+\.py$)")
PATHS = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError, FileExistsError)
# Options whose choice decides which of their neighbours mean anything: those of the recipe's own choice go with it.
OF_A_CHOICE = {
    "recipe.schedule.kind": ("milestones", "gamma", "patience"),
    "recipe.images.policy": ("shorter_side", "area", "pad"),
}
MANY = ("milestones",)
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


def parse_run(default: Run, argv: Sequence[str], description: str | None) -> Run:
    """A run with the overrides of argv. ValueError: an override has no effect beside the other settings."""
    run = parse_arguments(Run, default, argv, description)
    streamed = run.recipe.images.policy != "pad-crop"
    data, usual, scaling = run.data, Data(), run.scaling
    if not streamed and data.decode != usual.decode:
        raise ValueError(f"data.decode has an effect with streamed policies only, got {data.decode} with pad-crop")
    if streamed and data.memory_limit != usual.memory_limit:
        policy = run.recipe.images.policy
        raise ValueError(
            f"data.memory_limit has an effect with policy pad-crop only, got {data.memory_limit} with {policy}"
        )
    if scaling.gpu is False and scaling.gpus_per_worker is not None:
        raise ValueError(f"scaling.gpus_per_worker has no effect with scaling.gpu False, got {scaling.gpus_per_worker}")
    return run


def _without_rivals(default: Model, argv: Sequence[str]) -> Model:
    """The default without what an option of argv takes the place of: what is given wins. ValueError: both are given."""
    given = {word.partition("=")[0][2:].replace("-", "_") for word in argv if word.startswith("--")}
    for pair in RIVALS:
        named = [name for name in pair if name in given]
        if len(named) > 1:
            raise ValueError(f"one of {' and '.join(named)} must be given, got both")
        for other in set(pair) - set(named) if named else ():
            default = _without(default, other.split("."))
    for choice, owned in OF_A_CHOICE.items():
        group = choice.rpartition(".")[0]
        for name in (f"{group}.{field}" for field in owned) if choice in given else ():
            default = default if name in given else _without(default, name.split("."))
    return default


def _without(model: Model, path: Sequence[str]) -> Model:
    """A copy whose field at a path of names is None, or an empty tuple; the same where it has no such field."""
    if path[0] not in type(model).model_fields:
        return model
    value = getattr(model, path[0])
    inner = (() if path[0] in MANY else None) if len(path) == 1 else _without(value, path[1:])
    return model.model_copy(update={path[0]: inner})


def parse_after_model(kind: type[Model], argv: Sequence[str], description: str | None) -> tuple[str, Model]:
    """The model that the first word names, and an object of `kind` from the options behind it."""
    name = argv[0] if argv and not argv[0].startswith("-") else None
    asked = parse_arguments(kind, None, argv[1:] if name else argv, description)
    if name is None:
        raise ValueError("MODEL must come first: a checkpoint, a registered model such as resnet@champion, or weights")
    return name, asked


def with_run_name(words: Sequence[str]) -> list[str]:
    """The words with --run-name in place of --name, which people write."""
    return [re.sub(r"^--name(?==|$)", "--run-name", word) for word in words]


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


def run_job(
    job: Callable[[list[str]], dict[str, Any] | BaseModel | None],
    after_stop: str = "the same command goes on where it stopped",
    *,
    notifies: bool = False,
) -> None:
    """Run a job as the main program: its outcome is one line of JSON, the last on stdout; all else goes to stderr.

    A mistake is one sentence and exit status 2, a failure one sentence and 1. Ctrl-C, SIGTERM, SIGHUP: 130.
    after_stop: how a stopped job goes on, where the job did not say so itself. notifies: it takes --notify.
    """
    prog, words = sys.argv[0].rsplit("/", 1)[-1], sys.argv[1:]
    notice = JobNotice(prog, None)
    try:
        if {"-h", "--help"} & set(words):
            _show_help(job)
        stop_signals.begin(prog, after_stop)
        if notifies:
            notice.address, words = take_address(words)
        with contextlib.redirect_stdout(sys.stderr):
            outcome = job(words)
    except KeyboardInterrupt as stopped:
        sentence = str(stopped) or f"stopped; {after_stop}"
        with contextlib.suppress(OSError):  # of a terminal that is closed
            print(f"{prog}: {sentence}", file=sys.stderr, flush=True)
        _tell(notice, "stopped", error=sentence)
        sys.exit(stop_signals.STATUS)
    except Exception as error:
        if (known := explained(error)) is None or os.environ.get(TRACEBACK):
            _tell(notice, "failed", error=f"{type(error).__name__}: {_one_line(str(error), error)}")
            raise
        status, sentence = known
        print(f"{prog}: {sentence}", file=sys.stderr)
        _tell(notice, "failed", error=sentence)
        sys.exit(status)
    finally:
        stop_signals.end_soon()
    row = outcome.model_dump(mode="json") if isinstance(outcome, BaseModel) else outcome
    if row is not None:
        with quiet_when_closed():
            print(json.dumps(row), flush=True)
    _tell(notice, "finished", row)


def _tell(notice: JobNotice, end: End, outcome: dict[str, Any] | None = None, error: str | None = None) -> None:
    """Send the notice; a request to end while that takes ends the process at once."""
    stop_signals.end_soon()
    notice.tell(end, outcome, error)


def explained(error: Exception) -> tuple[int, str] | None:
    """Exit status and the sentence for an error that is none of the program's own; None: a fault of the program.

    2: a mistake in the command, or in what it names; 1: what may be otherwise another time. An error that a library
    raised says where in our source it came through, as its own words name neither file nor field.
    """
    inner: Any = error
    while isinstance(getattr(inner, "cause", None), Exception):  # Ray hands on what a task raised
        inner = inner.cause
    if isinstance(inner, PATHS):
        text = f"{inner.strerror}: {inner.filename}" if inner.strerror and inner.filename else str(inner)
        return 2, _one_line(text, inner)
    if isinstance(inner, ValueError | ImportError):
        return 2, _one_line(str(inner), inner)
    by_library = type(inner).__module__.partition(".")[0] in ("pyarrow", "ray")
    # Ray raises Exception itself where a crowded machine starts its processes too slowly; we never do.
    if isinstance(inner, OSError | RuntimeError) or type(inner) is Exception or by_library:
        return 1, _one_line(str(inner), inner)
    return None


def _one_line(text: str, error: BaseException) -> str:
    """The text without secrets, and where it comes from if it is not in our words."""
    shown = " ".join(without_secrets_in(text).split()) or type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or OURS.search(frames[-1].filename):
        return shown
    ours = [frame for frame in frames if OURS.search(frame.filename)]
    place = f" ({OURS.sub('', ours[-1].filename)}:{ours[-1].lineno})" if ours else ""
    return f"{shown[:MOST]}{'...' if len(shown) > MOST else ''}{place}"
