"""A notice by webhook of how a job ended: a JSON POST, which Slack's incoming webhooks and those like them show.

The address often holds a secret. It is no setting of a run, so that no record has it, and people see its host only.
"""

from __future__ import annotations

import json
import os
import re
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from typing import Any, Literal
from urllib.parse import urlsplit

NOTIFY = "RESNET_NOTIFY"  # environment variable with the address
LIMIT = 10.0  # seconds, all in all, that a job waits for whoever is told
FIGURES = {"top1_error": "top-1 error", "mean_ap": "mAP", "mean_iou": "mIoU"}  # of an outcome, in percent

End = Literal["finished", "failed", "stopped"]
_facts: dict[str, Any] = {}  # of this process's job


def add_facts(**facts: Any) -> None:
    """Keep what the notice of this process's job will say: run, step, mlflow."""
    _facts.update(facts)


def take_address(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The address of --notify, else of RESNET_NOTIFY, and the words that are left.

    ValueError: it is no address of HTTP.
    """
    address, name, rest, given = os.environ.get(NOTIFY) or None, NOTIFY, [], iter(words)
    for word in given:
        if word == "--notify":
            address, name = next(given, ""), "--notify"
        elif word.startswith("--notify="):
            address, name = word.partition("=")[2], "--notify"
        else:
            rest.append(word)
    if address is not None and not (re.match(r"https?://[^\s/]", address) and host_of(address)):
        raise ValueError(f"{name} must be http(s)://HOST/..., the address of a webhook; it is not shown, as a secret")
    return address, rest


def host_of(address: str) -> str:
    """The part of an address that may be shown; empty where there is none."""
    try:
        parts = urlsplit(address)
        return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:  # of a port that is no number
        return ""


def content(prog: str, end: End, seconds: float, outcome: Mapping[str, Any], error: str | None) -> dict[str, Any]:
    """The notice. text: what chat programs show."""
    failed = outcome.get("failed")
    if error is None and isinstance(failed, Mapping) and failed:
        error = f"{len(failed)} failed: " + "; ".join(f"{run}: {why}" for run, why in failed.items())
    run = outcome.get("run") or outcome.get("sweep") or _facts.get("run")
    step = outcome.get("steps", _facts.get("step"))
    figures = {name: outcome[name] for name in FIGURES if outcome.get(name) is not None}
    said = [f"{FIGURES[name]} {value:.2f} %" for name, value in figures.items()]
    said += [f"step {step:,}"] if step is not None else []
    said += [text for text in (error, _facts.get("mlflow")) if text]
    sentence = f"{run or prog} {end} after {_clock(seconds)} on {socket.gethostname()}"
    return {
        "text": f"{sentence}: {'; '.join(said)}" if said else sentence,
        "job": prog,
        "run": run,
        "outcome": end,
        "step": step,
        "error": error,
        "mlflow": _facts.get("mlflow"),
        "seconds": round(seconds, 1),
        "host": socket.gethostname(),
        **figures,
    }


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{second:02}"


def send(address: str, notice: Mapping[str, Any]) -> None:
    """Post a notice. One that cannot be delivered is one line on stderr, and never an error of the job."""
    failures = [f"no answer within {LIMIT:g} s"]

    def post() -> None:
        failures[0] = _post(address, notice) or ""

    # The limit of urllib is one of each read, of which a slow answer may have many.
    thread = threading.Thread(target=post, name="notice", daemon=True)
    thread.start()
    thread.join(LIMIT)
    if failures[0]:
        print(f"the notice to {host_of(address)} is not delivered: {failures[0]}", file=sys.stderr, flush=True)


def _post(address: str, notice: Mapping[str, Any]) -> str | None:
    """None where it is delivered; else why not, without the address."""
    headers = {"Content-Type": "application/json", "User-Agent": "deep-residual-ray"}
    request = urllib.request.Request(address, json.dumps(notice).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=LIMIT) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        return f"status {error.code}"
    except urllib.error.URLError as error:
        return type(error.reason).__name__ if isinstance(error.reason, Exception) else "the host cannot be reached"
    except (OSError, HTTPException, ValueError) as error:  # their words may hold the address
        return type(error).__name__
    return None


class JobNotice:
    """The notice of the job that this process is. address: None, nobody is told."""

    def __init__(self, prog: str, address: str | None) -> None:
        self.prog, self.address, self.began = prog, address, time.monotonic()

    def tell(self, end: End, outcome: Mapping[str, Any] | None = None, error: str | None = None) -> None:
        """Say how the job ended, to whoever wants to know."""
        if self.address is not None:
            seconds = time.monotonic() - self.began
            send(self.address, content(self.prog, end, seconds, outcome or {}, error))
