"""The versions that shall answer, by the registry: alias `champion` (or another) stable, others beside it.

Aliases `canary`, `canary-2`, ... answer a share of the images; `shadow`, `shadow-2`, ... compute a share too, compared
and never returned. The registry is the one place where this is said: what follows it (jobs/deploy_best.py) needs no
other word, and a canary outlives the process that began it. Tags of the version: canary_percent, its share;
promote_after, seconds with a good verdict after which it takes over; canary_verdict, how it compares;
endpoint_refused, why the endpoint does not serve it.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from pipelines.models import by_name, pretrained_weights, weight_files
from pipelines.tracking import mlflow_runs, model_registry
from pipelines.tracking.mlflow_store import store_error

CANARY, SHADOW = "canary", "shadow"
ALIAS = re.compile(rf"({CANARY}|{SHADOW})(?:-(\d+))?")
PERCENT, AFTER, VERDICT, REFUSED = "canary_percent", "promote_after", "canary_verdict", "endpoint_refused"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Beside(NamedTuple):
    """Versions to begin beside the stable one. canaries, shadows: VERSION=10%; promote_after: 1h."""

    canaries: Sequence[str] = ()
    shadows: Sequence[str] = ()
    promote_after: str | None = None


def traffic(
    model: str, checkpoint: str | None = None, network: str | None = None, preprocess: str | None = None
) -> dict[str, Any]:
    """`resnet@champion` or `resnet/3` -> {"stable": {"version", "checkpoint"}, "beside": [{"percent", ...}]}.

    checkpoint: a folder or URI in place of a registered model, or a file of weights of this network.
    """
    asked = {"network": network, "preprocess": preprocess}
    if checkpoint is not None:
        weights = weight_files.is_weights(checkpoint) or any(asked.values())
        place, version = by_name.checkpoint_of(checkpoint, **asked) if weights else (checkpoint, "unregistered")
        return {"stable": {"version": version, "checkpoint": place}, "beside": []}
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
    found = [_beside(api, alias, each) for alias, each in _aliases(api, model) if str(each.version) != version]
    return {"stable": stable, "beside": found}


def _aliases(api: Any, model: str) -> list[tuple[str, Any]]:
    """Aliases of versions beside the stable one, canaries first, with what the registry has of each version."""
    if not follows(model):
        return []
    aliases = api.get_registered_model(_name(model)).aliases
    ours = sorted((match[1], int(match[2] or 1), alias) for alias in aliases if (match := ALIAS.fullmatch(alias)))
    return [(alias, api.get_model_version(_name(model), aliases[alias])) for _, _, alias in ours]


def _beside(api: Any, alias: str, found: Any) -> dict[str, Any]:
    if PERCENT not in found.tags:
        raise ValueError(f"version {found.version}, alias {alias}, must have tag {PERCENT}; --canary sets both")
    after = found.tags.get(AFTER)
    return {
        "version": str(found.version),
        "checkpoint": model_registry.place_of(api, found),
        "percent": float(found.tags[PERCENT]),
        "shadow": alias.startswith(SHADOW),
        "promote_after": None if after is None else float(after),
    }


def steer(model: str, beside: Beside, *, promote: bool, rollback: bool) -> dict[str, Any] | None:
    """Begin or end canaries and shadows, and say so; None where neither is asked for."""
    begins = bool(beside.canaries or beside.shadows)
    if not (begins or promote or rollback):
        return None
    with told(model):
        sentence = begin_beside(model, beside) if begins else end_beside(model, promote)
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


def begin_beside(model: str, beside: Beside) -> str:
    """Let versions answer a share of the images, or compute it too, in place of those that do so now. A sentence;
    ValueError says what is wrong, and nothing has changed."""
    asked = [(CANARY, *parse_canary(text)) for text in beside.canaries]
    asked += [(SHADOW, *parse_canary(text, SHADOW)) for text in beside.shadows]
    after = None if beside.promote_after is None else parse_time(beside.promote_after)
    if not follows(model):
        raise ValueError(f"model must name an alias to have a canary, such as resnet@champion, got {model}")
    _require_versions(model, asked)
    api, name = mlflow_runs.client(), _name(model)
    for alias, _ in _aliases(api, model):
        api.delete_registered_model_alias(name, alias)
    counts: Counter[str] = Counter()
    for kind, version, share in asked:
        api.set_model_version_tag(name, version, PERCENT, f"{share:g}")
        if after is not None:
            api.set_model_version_tag(name, version, AFTER, f"{after:g}")
        elif AFTER in api.get_model_version(name, version).tags:
            api.delete_model_version_tag(name, version, AFTER)
        counts[kind] += 1
        api.set_registered_model_alias(name, kind if counts[kind] == 1 else f"{kind}-{counts[kind]}", version)
    shown = [
        f"version {version} is a {kind} of {model}, for {share:g} % of the images" for kind, version, share in asked
    ]
    return "; ".join(shown)


def _require_versions(model: str, asked: Sequence[tuple[str, str, float]]) -> None:
    """ValueError where a version cannot be beside the stable one, or the shares leave it nothing."""
    stable = model_registry.resolve(model)[1]
    versions = [version for _, version, _ in asked]
    for kind, version, _ in asked:
        model_registry.resolve(f"{_name(model)}/{version}")
        if version == stable:
            raise ValueError(f"{kind} must be another version than {model}, got {version}")
        if versions.count(version) > 1:
            raise ValueError(f"{kind} must name each version once, got {version} {versions.count(version)} times")
    total = sum(share for kind, _, share in asked if kind == CANARY)
    if total >= 100:
        raise ValueError(f"canary must leave {model} a share, got {total:g} % together")


def parse_canary(text: str, kind: str = CANARY) -> tuple[str, float]:
    """VERSION=10% -> (version, percent). kind: a shadow may compute all images. ValueError."""
    match = re.fullmatch(r"(\d+)=(\d+(?:\.\d+)?)%", text)
    if match is None or not (0 < float(match[2]) < 100 or (kind == SHADOW and float(match[2]) == 100)):
        most = "at most 100" if kind == SHADOW else "less than 100"
        raise ValueError(
            f"{kind} must be VERSION=PERCENT% with its sign, more than 0 and {most}, e.g. 4=10%, got {text}"
        )
    return match[1], float(match[2])


def parse_time(text: str) -> float:
    """90s, 30m, 1h or 1d in seconds. ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if match is None:
        raise ValueError(f"promote_after must be a number with s, m, h or d behind it, e.g. 1h, got {text}")
    return float(match[1]) * UNITS[match[2]]


def end_beside(model: str, promote: bool) -> str:
    """End all canaries and shadows: the one canary as the version of the alias, or without a trace but its verdict."""
    api = mlflow_runs.client()
    there = _aliases(api, model)
    canaries = [str(found.version) for alias, found in there if alias.startswith(CANARY)]
    if not there or (promote and not canaries):
        raise ValueError(f"{model} must have a canary to {'promote' if promote else 'roll back'}, it has none")
    if promote and len(canaries) > 1:
        several = " and ".join(canaries)
        raise ValueError(f"{model} must have one canary to promote, it has {several}: begin anew with that one alone")
    sentences = [_end_alias(model, alias, found, promote and alias.startswith(CANARY)) for alias, found in there]
    return "; ".join(sentences)


def end_one(model: str, version: str, promote: bool) -> str:
    """End one canary or shadow, which takes over or goes, and leave the others. A sentence."""
    for alias, found in _aliases(mlflow_runs.client(), model):
        if str(found.version) == version:
            return _end_alias(model, alias, found, promote)
    return f"version {version} is beside {model} no more"


def _end_alias(model: str, alias: str, found: Any, promote: bool) -> str:
    api, name = mlflow_runs.client(), _name(model)
    if promote:
        api.set_registered_model_alias(name, model.partition("@")[2] or model_registry.CHAMPION, found.version)
    api.delete_registered_model_alias(name, alias)
    kind, verdict = alias.partition("-")[0], found.tags.get(VERDICT, "no verdict yet")
    what = f"is {model} now" if promote else f"is no {kind} any more"
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
