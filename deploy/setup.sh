#!/usr/bin/env bash
# Set up .venv from the pinned, hashed requirements.txt, on a laptop, in a container or on a cluster's node.
# RESNET_LOCK=requirements-run.txt leaves the development packages out, as cluster.yaml and deploy/Dockerfile do.
# Needs Python 3.11 to 3.14 and a network. A second run with unchanged requirements changes nothing.
#   bash deploy/setup.sh            PYTHON=python3.12 bash deploy/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

UV=uv==0.13.9
RESNET_LOCK=${RESNET_LOCK:-requirements.txt}
NEED_KIB=$((8 * 1024 * 1024)) # the CUDA builds of torch alone unpack to 6 GiB

fail() {
    echo "setup: $*" >&2
    exit 1
}

suits() { # a Python that Ray has wheels for
    command -v "$1" >/dev/null 2>&1 && "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null
}

find_python() {
    local candidate
    for candidate in "${PYTHON:-python3}" python3.12 python3.11 python3.13 python3.14 python; do
        if suits "$candidate"; then
            echo "$candidate"
            return
        elif [ -n "${PYTHON:-}" ]; then
            break # who names one means that one
        fi
    done
    fail "Python 3.11 to 3.14 is needed, found ${PYTHON:-$(python3 --version 2>/dev/null || echo none)}; install one, or name it: PYTHON=/path/to/python3.12 make train"
}

has_wheels() { # of Ray and torch: for glibc and macOS on 64-bit x86 and ARM
    "$1" -c 'import platform, sys
good = platform.machine() in ("x86_64", "AMD64", "aarch64", "arm64") and sys.maxsize > 2**32
sys.exit(not (good and (sys.platform == "darwin" or platform.libc_ver()[0] == "glibc")))'
}

explain() { # the log of a failed installation, in one sentence
    if grep -qiE 'certificate' "$1"; then
        fail "the certificate of the package index is not trusted here; set SSL_CERT_FILE to the file of your organisation's (log: $1)"
    elif grep -qiE 'permission denied|read-only file system' "$1"; then
        fail "$PWD cannot be written by this user; work in a copy of your own (log: $1)"
    elif grep -qiE 'no space left|disk quota' "$1"; then
        fail "the disk is full; about 8 GiB are needed for .venv (log: $1)"
    elif grep -qiE 'dns error|failed to resolve|name resolution|connect|timed out|unreachable|failed to fetch|no matching distribution' "$1"; then
        fail "the package index cannot be reached; check the network or proxy and run the same command again (log: $1)"
    fi
    tail -n 20 "$1" >&2
    fail "installation failed (log: $1)"
}

[ -f "$RESNET_LOCK" ] || fail "RESNET_LOCK must be requirements.txt or requirements-run.txt, got $RESNET_LOCK"
stamp=$(cat "$RESNET_LOCK" pyproject.toml deploy/setup.sh | cksum)
if [ -x .venv/bin/ray ] && [ "$(cat .venv/.ready 2>/dev/null)" = "$stamp" ]; then
    touch .venv/.ready 2>/dev/null || true # make compares times; in an image the folder is another user's
    exit 0
fi

unset PIP_USER PIP_TARGET PIP_PREFIX PYTHONHOME PYTHONPATH # a person's settings for other environments
python=$(find_python)
has_wheels "$python" || fail "Ray has packages for Linux with glibc and for macOS, on 64-bit x86 and ARM; this is $(uname -sm)$("$python" -c 'import platform; print("" if platform.libc_ver()[0] else ", without glibc")')"
[ -w . ] || fail "$PWD cannot be written by this user; work in a copy of your own"
if [ ! -d .venv/lib ]; then
    free=$(df -Pk . | awk 'NR == 2 {print $4}')
    [ "$free" -ge "$NEED_KIB" ] || fail "the disk is too full: $((free / 1048576)) GiB are free here, about 8 GiB are needed for .venv"
fi
echo "setup: installing into .venv (a minute on a fast network, 6 GiB on Linux)" >&2
log=$(mktemp "${TMPDIR:-/tmp}/resnet-setup.XXXXXX") || fail "no temporary file can be written; is the disk full?"
"$python" -m venv .venv >"$log" 2>&1 || { grep -qi ensurepip "$log" && fail "$python lacks the venv module; on Debian and Ubuntu: apt install python3-venv"; explain "$log"; }
.venv/bin/python -m pip install --quiet --disable-pip-version-check "$UV" >"$log" 2>&1 || explain "$log"
export UV_LINK_MODE="${UV_LINK_MODE:-hardlink}" VIRTUAL_ENV="$PWD/.venv"
# Ray starts many Python processes, and each would compile torch, Ray and pyarrow anew where bytecode is not written.
.venv/bin/uv pip sync --require-hashes --compile-bytecode "$RESNET_LOCK" >"$log" 2>&1 || explain "$log"
isolation=() # the lock without development packages has no build backend: uv fetches one
.venv/bin/python -c 'import hatchling' 2>/dev/null && isolation=(--no-build-isolation)
.venv/bin/uv pip install --no-deps ${isolation[@]+"${isolation[@]}"} --editable . >"$log" 2>&1 || explain "$log"
echo "$stamp" >.venv/.ready
rm -f "$log"
