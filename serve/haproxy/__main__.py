"""`python -m serve.haproxy FOLDER` writes HAProxy's files and prints the variables to start a cluster's Ray with."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from resnet.host.closed_pipe import quiet_when_closed
from serve.haproxy.environment import SETTINGS, binary, write_files

if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(f"serve.haproxy: FOLDER must be given, got {sys.argv[1:] or 'nothing'}", file=sys.stderr)
        sys.exit(2)
    place = Path(sys.argv[1]).absolute()
    place.mkdir(parents=True, exist_ok=True)
    variables = SETTINGS | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(write_files(place, binary()))}
    with quiet_when_closed():
        print(*(f"export {name}={shlex.quote(value)}" for name, value in variables.items()), sep="\n")
