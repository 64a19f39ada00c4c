"""The versions that shall answer, by the registry: alias `champion` (or another) stable, alias `canary` beside it.

The registry is the one place where this is said: what follows it (jobs/deploy_best.py) needs no other word, and a
canary outlives the process that began it. Tag canary_percent: its share; canary_verdict: how the two compare;
endpoint_refused: why the endpoint does not serve the version.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

from pipelines.models import by_name, pretrained_weights, weight_files
from pipelines.tracking import mlflow_runs, model_registry
from pipelines.tracking.mlflow_store import store_error

CANARY = "canary"
PERCENT, VERDICT, REFUSED = "canary_percent", "canary_verdict", "endpoint_refused"


def traffic(
    model: str, checkpoint: str | None = None, network: str | None = None, preprocess: str | None = None
) -> dict[str, Any]:
    """`resnet@champion` or `resnet/3` -> {"stable": {"version", "checkpoint"}, "canary": None or with "percent"}.

    checkpoint: a folder or URI in place of a registered model, or a file of weights of this network.
    """
    asked = {"network": network, "preprocess": preprocess}
    if checkpoint is not None:
        weights = weight_files.is_weights(checkpoint) or any(asked.values())
        place, version = by_name.checkpoint_of(checkpoint, **asked) if weights else (checkpoint, "unregistered")
        return {"stable": {"version": version, "checkpoint": place}, "canary": None}
    for option, value in asked.items():
        if value is not None:
            raise ValueError(f"{option} is for checkpoint, a file of weights ({', '.join(pretrained_weights.WEIGHTS)})")
    with told(model):
        return _registered(model)


def _registered(model: str) -> dict[str, Any]:
    """traffic() of a registered model."""
    source, version = model_registry.resolve(model)
    stable = {"version": version, "checkpoint": source}
    api = mlflow_runs.client()
    found = model_registry.by_alias(api, _name(model), CANARY) if follows(model) else None
    if found is None or str(found.version) == version:
        return {"stable": stable, "canary": None}
    if PERCENT not in found.tags:
        raise ValueError(f"version {found.version}, alias {CANARY}, must have tag {PERCENT}; --canary sets both")
    place, percent = model_registry.place_of(api, found), float(found.tags[PERCENT])
    return {"stable": stable, "canary": {"version": str(found.version), "checkpoint": place, "percent": percent}}


def steer(model: str, canary: str | None, *, promote: bool, rollback: bool) -> dict[str, Any] | None:
    """Begin or end a canary, and say so; None where neither is asked for."""
    if not (canary or promote or rollback):
        return None
    with told(model):
        sentence = begin_canary(model, canary) if canary else end_canary(model, promote)
    print(sentence, file=sys.stderr)
    return {"model": model, "done": sentence} | traffic(model)


@contextlib.contextmanager
def told(model: str) -> Iterator[None]:
    """Turn an error of a registry's store into one sentence, a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # whatever a store on a network throws
        raise ValueError(f"model {model} cannot be looked up: {store_error(error)}") from None


def follows(model: str) -> bool:
    """True if a name can come to mean another version."""
    return "/" not in model


def _name(model: str) -> str:
    return model.replace("/", "@").partition("@")[0]


def begin_canary(model: str, canary: str) -> str:
    """Let a version answer a share of the images. canary: VERSION=10%. A sentence; ValueError says what is wrong."""
    version, share = parse_canary(canary)
    if not follows(model):
        raise ValueError(f"model must name an alias to have a canary, such as resnet@champion, got {model}")
    model_registry.resolve(f"{_name(model)}/{version}")
    if model_registry.resolve(model)[1] == version:
        raise ValueError(f"canary must be another version than {model}, got {version}")
    api = mlflow_runs.client()
    api.set_model_version_tag(_name(model), version, PERCENT, f"{share:g}")
    api.set_registered_model_alias(_name(model), CANARY, version)
    return f"version {version} is the canary of {model}, for {share:g} % of the images"


def parse_canary(text: str) -> tuple[str, float]:
    """VERSION=10% -> (version, percent). ValueError."""
    match = re.fullmatch(r"(\d+)=(\d+(?:\.\d+)?)%", text)
    if match is None or not 0 < float(match[2]) < 100:
        raise ValueError(
            f"canary must be VERSION=PERCENT% with its sign, more than 0 and less than 100, e.g. 4=10%, got {text}"
        )
    return match[1], float(match[2])


def end_canary(model: str, promote: bool) -> str:
    """End the canary: as the version of the alias, or without a trace but its verdict. A sentence."""
    api, name = mlflow_runs.client(), _name(model)
    found = model_registry.by_alias(api, name, CANARY) if follows(model) else None
    if found is None:
        raise ValueError(f"{model} must have a canary to {'promote' if promote else 'roll back'}, it has none")
    if promote:
        api.set_registered_model_alias(name, model.partition("@")[2] or model_registry.CHAMPION, found.version)
    api.delete_registered_model_alias(name, CANARY)
    verdict = found.tags.get(VERDICT, "no verdict yet")
    what = f"is {model} now" if promote else "is no canary any more"
    return f"version {found.version} {what} ({verdict})"


def note_verdict(model: str, version: str, sentence: str) -> None:
    """Keep what was found out about a canary, with its version."""
    mlflow_runs.client().set_model_version_tag(_name(model), version, VERDICT, sentence[:500])


def note_refusal(model: str, version: str, reason: str | None) -> None:
    """Keep with a version why the endpoint does not serve it; None: it does, and an older reason goes."""
    api, name = mlflow_runs.client(), _name(model)
    if reason is not None:
        api.set_model_version_tag(name, version, REFUSED, reason[:500])
    elif REFUSED in api.get_model_version(name, version).tags:
        api.delete_model_version_tag(name, version, REFUSED)
