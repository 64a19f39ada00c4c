"""The address of MLflow's store, its own environment variables, and what its errors mean, in one sentence each.

`check_store` asks the store before a training: by plain HTTP or SQLite where that will do, for the import of mlflow
takes seconds. A store that refuses (a wrong address, 401, 403, a deleted experiment) ends the command; one that is away
does not, for what it misses is sent later.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import sqlite3
import ssl
import urllib.error
import urllib.request
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from pipelines.run import home

EXPERIMENT = "resnet"
URI = "MLFLOW_TRACKING_URI"
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# What a job needs of the submitting shell to write to the same store and buckets. Only names are ever recorded.
CREDENTIALS = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AZURE_STORAGE_CONNECTION_STRING",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
)
SETTINGS = (
    URI,
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_S3_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_EC2_METADATA_DISABLED",
    "AZURE_STORAGE_ACCOUNT",
)
EXTRAS = {"boto3": "s3", "google": "gs", "azure": "azure"}  # module that MLflow misses, and our extra that has it
UNREACHABLE = re.compile(
    r"connection (refused|reset|aborted)|timed out|name or service not known|temporary failure in name resolution|"
    r"no route to host|network is unreachable|certificate verify failed|max retries exceeded|failed to establish",
    re.IGNORECASE,
)
STATUS = re.compile(r"(?:error code|too many) (\d{3})")


def store_uri() -> str:
    """MLFLOW_TRACKING_URI, or a SQLite file in $RESNET_HOME. A path of SQLite becomes absolute: processes of Ray run in
    other folders. ValueError: no store that MLflow 3 writes to, or an address with a password."""
    uri = os.environ.get(URI)
    if not uri:
        if set("%?#") & set(home()):
            raise ValueError(
                f"RESNET_HOME must have no %, ? or # in its path, which SQLite's address cannot hold, got {home()}; "
                f"{URI} can name another store"
            )
        return f"sqlite:///{home()}/mlflow.db"
    scheme, _, rest = uri.partition(":")
    if scheme in ("http", "https"):
        if urlsplit(uri).password or urlsplit(uri).username:
            raise ValueError(
                f"{URI} must hold no name and password, which would stand in records: set MLFLOW_TRACKING_USERNAME and "
                f"MLFLOW_TRACKING_PASSWORD for {without_secrets(uri)}"
            )
        return uri.rstrip("/")
    if scheme == "sqlite":
        path = rest.removeprefix("///")
        if not path or set("%?#") & set(path):
            raise ValueError(f"{URI} must be sqlite:///PATH with no %, ? or # in the path, got {uri}")
        return f"sqlite:///{Path(path).expanduser().absolute()}"
    known = scheme.partition("+")[0] in DATABASES or scheme == "databricks"
    if os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() in ("true", "1"):
        known = known or scheme == "file" or "://" not in uri
    if known or any(point.name == scheme for point in entry_points(group="mlflow.tracking_store")):
        return uri
    raise ValueError(
        f"{URI} must be http(s)://HOST:PORT of an MLflow server, sqlite:///PATH, or a database's address, got "
        f"{without_secrets(uri)}" + ("" if "://" in uri and scheme != "file" else ": MLflow 3 keeps no runs in folders")
    )


def without_secrets(uri: str) -> str:
    """An address without name, password and options."""
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def experiment_name() -> str:
    """MLFLOW_EXPERIMENT_NAME, else resnet. Where MLFLOW_EXPERIMENT_ID is set, that wins, as in MLflow itself."""
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT


def key_filter(key: str) -> str:
    """MLflow's filter for runs whose tag resnet.key may be this: its strings have no escapes, so marks of quotation
    stand as LIKE's wildcard for one character. Who asks compares the tags that come back."""
    if not set("'\"\\") & set(key):
        return f"tags.`resnet.key` = '{key}'"
    pattern = re.sub(r"""['"\\]""", "_", key)
    return f"tags.`resnet.key` LIKE '{pattern}'"


def is_away(error: BaseException) -> bool:
    """True if an error says that the store cannot be reached, or not now: no answer, 429 or 5xx."""
    text = str(error)
    found = STATUS.search(text)
    if found:
        return found[1] == "429" or found[1].startswith("5")
    if getattr(error, "error_code", None) in ("REQUEST_LIMIT_EXCEEDED", "TEMPORARILY_UNAVAILABLE"):
        return True
    return isinstance(error, ConnectionError | TimeoutError) or UNREACHABLE.search(text) is not None


def store_error(error: BaseException) -> str:
    """The meaning of an error of the store, as the end of a sentence; without secrets. Our own sentences stay."""
    if isinstance(error, ValueError):
        return str(error)
    uri = os.environ.get(URI) or ""
    at = f"MLflow at {without_secrets(uri)}" if uri else f"MLflow's store in {home()}"
    text = str(error).replace(urlsplit(uri).password or "\0", "***")
    lacks = next((extra for module, extra in EXTRAS.items() if f"No module named '{module}" in text), None)
    if lacks is not None:
        return f"{at} keeps artifacts where a package is missing: pip install 'deep-residual-ray[{lacks}]'"
    status = _status(error)
    if status == 401:
        return (
            f"{at} refuses who asks (401): MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN, must be set and right"
        )
    if status == 403 and "host header" in text.lower():
        return f"{at} refuses its own address (403): the server must be started with --allowed-hosts that names it"
    if status == 403:
        return f"{at} refuses this (403): {_first_line(text)}"
    if status is not None and (status == 429 or status >= 500):
        return f"{at} cannot answer now ({status})"
    if UNREACHABLE.search(text) or isinstance(error, ConnectionError | TimeoutError):
        found = [match[0].lower() for match in UNREACHABLE.finditer(text)] or [_first_line(text)]
        # MLflow's text goes from "max retries exceeded" to the cause
        return f"{at} cannot be reached: {found[-1]}"
    return f"{at}: {_first_line(text) or type(error).__name__}"


def _status(error: BaseException) -> int | None:
    code = getattr(error, "code", None)
    if isinstance(error, urllib.error.HTTPError):
        return error.code
    by_name = {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "REQUEST_LIMIT_EXCEEDED": 429}
    named = by_name.get(str(getattr(error, "error_code", "")))
    found = STATUS.search(str(error))
    return int(found[1]) if found else named if named else code if isinstance(code, int) and code >= 400 else None


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:300]


def check_store(ask_client: Any) -> str | None:
    """Look at the store before cluster resources are taken: None where it will take a run, else a sentence on why it
    does not answer now. ask_client: () -> None, the same question by MLflow's own client, raising its errors.

    ValueError: it refuses, and would still do so at the end of the training.
    """
    uri = store_uri()
    if URI in os.environ:
        os.environ[URI] = uri
    if _is_fine(uri):
        return None
    try:
        ask_client()
    except ValueError:
        raise
    except Exception as error:  # whatever a store on a network throws
        if is_away(error):
            return store_error(error)
        raise ValueError(store_error(error)) from None
    return None


def _is_fine(uri: str) -> bool:
    """True if a quick look finds nothing amiss. False: MLflow's own client has to say."""
    if os.environ.get("MLFLOW_EXPERIMENT_ID") or os.environ.get("MLFLOW_RUN_ID"):
        return False
    if uri.startswith("sqlite:///"):
        return _sqlite_is_fine(Path(uri.removeprefix("sqlite:///")))
    if not uri.startswith(("http://", "https://")):
        return False
    try:
        with urllib.request.urlopen(_question(uri), timeout=10, context=_context()) as answer:
            return json.load(answer)["experiment"]["lifecycle_stage"] == "active"
    except urllib.error.HTTPError as error:
        return error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read(4096)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _question(uri: str) -> urllib.request.Request:
    """The request for the experiment, with the credentials that MLflow's client takes from the environment."""
    headers = {}
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD"))
    if name and password:
        headers["Authorization"] = f"Basic {base64.b64encode(f'{name}:{password}'.encode()).decode()}"
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        headers["Authorization"] = f"Bearer {token}"
    path = f"/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(experiment_name())}"
    return urllib.request.Request(uri + path, headers=headers)


def _context() -> ssl.SSLContext | None:
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        return ssl._create_unverified_context()  # the user's own word
    return None


def _sqlite_is_fine(path: Path) -> bool:
    """A new file in a folder that can be written, or one whose experiment is not deleted."""
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        if not os.access(folder, os.W_OK):  # MLflow itself would try for minutes
            raise ValueError(f"MLflow's store must be in a folder that can be written, got {path}")
        return True
    if not os.access(path, os.W_OK):
        raise ValueError(f"MLflow's store must be a file that can be written, got {path}")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)) as store:
            rows = store.execute("SELECT lifecycle_stage FROM experiments WHERE name = ?", (experiment_name(),))
            return all(stage == "active" for (stage,) in rows.fetchall())
    except sqlite3.Error:  # another layout, or no database: MLflow itself says what it is
        return False
