"""All pairs of options of a training: both values that are given win, or one sentence refuses them.

    python benchmarks/reliability/option_pairs.py [--starts digits imagenet-resnet18@fast] [--every 1]

Each option of jobs/train_imagenet.py gets another value than its recipe's, alone and beside each other option. The last
line of stdout is JSON: pairs by outcome. Exit status 1 if a value that was given was beaten without a word.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import typing
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, Literal

from pydantic import BaseModel

from pipelines.command_line import parse_run
from pipelines.run import Run, standard


def leaves(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each option of a model by its dotted name, and its type."""
    for name, field in kind.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from leaves(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field.annotation


OPTIONS = dict(leaves(Run))


def start_of(name: str) -> Run:
    """The run before any option. name: a recipe, or digits."""
    return standard("cifar10-resnet20", data_is_given=False) if name == "digits" else standard(name)


def value_of(run: Run, option: str) -> Any:
    """The value of an option by its dotted name."""
    return reduce(getattr, option.split("."), run)


def another(option: str, usual: Any) -> tuple[list[str], Any]:
    """Words that give an option another value than the usual one, and that value."""
    kinds, flag = [OPTIONS[option], *typing.get_args(OPTIONS[option])], f"--{option}"
    group, dot, name = option.rpartition(".")
    if bool in kinds and type(None) in kinds:
        return [flag, "False"], False
    if bool in kinds:
        return ([f"--{group}{dot}no-{name}"], False) if usual else ([flag], True)
    if choices := [c for kind in kinds if typing.get_origin(kind) is Literal for c in typing.get_args(kind)]:
        choice = next(c for c in choices if c != usual)
        return [flag, str(choice)], choice
    if tuples := [kind for kind in kinds if typing.get_origin(kind) is tuple]:
        values = tuple(
            24 + 7 * i if kind is int else 0.25 * (i + 1) for i, kind in enumerate(typing.get_args(tuples[0]))
        )
        values = values if Ellipsis not in typing.get_args(tuples[0]) else (0.25, 0.75)
        return [flag, *map(str, values)], values
    if str in kinds:
        text = "cifar10-plain32" if option == "recipe.network" else {"resume": "never"}.get(option, "2")
        return [flag, text], 2 if option == "scaling.workers" else text
    number = next(n for n in ((64, 32) if int in kinds else (0.5, 0.25)) if n != usual)
    return [flag, str(number)], number


def won_or_refused(start: Run, options: Sequence[str]) -> str | None:
    """The sentence by which options are refused; None: each has the value that was given. AssertionError: neither."""
    given = {option: another(option, value_of(start, option)) for option in options}
    try:
        run = parse_run(start, [word for words, _ in given.values() for word in words], None)
    except ValueError as error:
        return str(error)
    for option, (words, value) in given.items():
        found = value_of(run, option)
        assert found == value or str(found).endswith(f"/{value}"), f"{' '.join(words)} became {found}"
    return None


def main() -> None:
    """Try the pairs, and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", nargs="+", default=["digits", "cifar10-resnet20", "imagenet-resnet18@fast"])
    parser.add_argument("--every", type=int, default=1, help="take every Nth pair")
    asked = parser.parse_args()
    beaten, counts = list[str](), {"won": 0, "refused": 0}
    for name in asked.starts:
        start = start_of(name)
        tried = [*((option,) for option in OPTIONS), *itertools.combinations(OPTIONS, 2)]
        for options in tried[:: asked.every]:
            try:
                counts["refused" if won_or_refused(start, options) else "won"] += 1
            except AssertionError as error:
                beaten.append(f"{name}: {error}")
                print(beaten[-1], file=sys.stderr, flush=True)
    print(json.dumps({"starts": asked.starts, "options": len(OPTIONS), **counts, "beaten": len(beaten)}))
    sys.exit(bool(beaten))


if __name__ == "__main__":
    main()
