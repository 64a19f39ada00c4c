"""Ray's configuration of HAProxy, made into ours. Python's own library only: HAProxy's keeper has nothing else.

Ray's file says which replicas there are and is written anew at each change. What it lacks is put in, line by line:
answers as problem details, request ids, keys before bodies, limits a client, a way for large bodies, a stopped replica
that is passed over, and nothing that listens but what was asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
FRONTEND = "frontend http_frontend"
PLACES = 64  # large bodies at once, of 16 MiB each
SLACK = 5.0  # seconds beyond the time-out until a replica that does not answer is given up: its own 504 comes first
OPEN = ("/", "/docs", "/openapi.json", "/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
# A WebSocket of a browser has its key in the subprotocol, and no body: the replica asks before it accepts
ASKS_ITSELF = "/v1/stream"
# What HAProxy itself answers. Retry-After in seconds where another try helps
ANSWERS: dict[int, tuple[str, str, int | None]] = {
    400: ("Bad Request", "this is no HTTP request that can be read", None),
    408: ("Request Timeout", "the body must arrive within {timeout:g} seconds", None),
    500: ("Internal Server Error", "the endpoint failed", None),
    502: ("Bad Gateway", "the replica that had the request ended; try again", 1),
    503: ("Service Unavailable", "no replica answers at the moment; try again", 1),
    504: ("Gateway Timeout", "no answer in time; try again", 1),
}


@dataclass(frozen=True)
class FrontChoices:
    """Settings of HAProxy that a person decides.

    timeout: seconds for a body, and again for its answer; most: requests at one replica at once, more wait; host:
    address to listen on where Serve's own is another; keys: file of the clients' keys; trusted: proxies whose
    X-Forwarded-For is believed; log: a Unix socket that takes lines of JSON, a datagram each.
    """

    timeout: float = 30.0
    most: int = 128
    host: str | None = None
    keys: str | None = None
    trusted: tuple[str, ...] = ()
    log: str | None = None


@dataclass(frozen=True, kw_only=True)
class FrontSettings(FrontChoices):
    """The configuration that HAProxy is given beside Ray's file.

    folder: of this instance's files; binary: HAProxy; buffer, largest, hot: bytes of its buffer, of the second one's,
    and of those that it keeps; retry_on, retries: as Ray has them; private: this Ray ends with its job, and so do the
    folder and that of Ray's token.
    """

    folder: str
    binary: str
    buffer: int
    largest: int
    hot: int
    retry_on: str
    retries: str
    private: bool = False

    @classmethod
    def read(cls, folder: str | Path) -> FrontSettings:
        """As they were written into a folder."""
        fields = json.loads((Path(folder) / "front.json").read_text())
        return cls(**fields | {"trusted": tuple(fields["trusted"])})

    def write(self) -> None:
        """Into the folder."""
        (Path(self.folder) / "front.json").write_text(json.dumps(asdict(self)))

    @property
    def fits(self) -> int:
        """Bytes of a body that the first HAProxy can hold, and so repeat."""
        return self.buffer // 8 * 7

    @property
    def milliseconds(self) -> int:
        """For a body."""
        return round(1000 * self.timeout)

    @property
    def answer_milliseconds(self) -> int:
        """Until a replica that does not answer is given up."""
        return round(1000 * (self.timeout + SLACK))


def front_config(rays: str, front: FrontSettings, admin: str, closing: bool = False) -> str:
    """The configuration for one HAProxy. admin: path of its own socket; closing: refuse what comes from now on."""
    sections = [_section(lines, front, admin, closing) for lines in _sections(rays)]
    return "\n".join([*(line for lines in sections for line in lines), *_own_sections(front)]) + "\n"


def only_forgets(new: str, old: str) -> bool:
    """True if a file of Ray's is for the same address as an older one, and lacks its routes."""
    binds, routes = r"(?m)^\s*bind .*$", r"(?m)^\s*use_backend "
    same = re.findall(binds, new) == re.findall(binds, old)
    return same and bool(re.search(routes, old)) and not re.search(routes, new)


def large_config(front: FrontSettings) -> str:
    """The configuration of the second HAProxy."""
    return (
        (HERE / "large.cfg.in")
        .read_text()
        .format(
            places=PLACES,
            bytes=front.largest,
            answer=front.answer_milliseconds,
            milliseconds=front.milliseconds,
            errors="\n".join(_answers(front)),
            folder=front.folder,
            RAY_SERVE_HAPROXY_RETRY_ON=front.retry_on,
            RAY_SERVE_HAPROXY_RETRIES=front.retries,
        )
    )


def problem_text(status: int, title: str, detail: str) -> str:
    """Problem details as a word of HAProxy's configuration, with the request's id. error: /v2's clients read that."""
    fields = {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": detail}
    text = json.dumps(fields | {"request_id": "REQUEST-ID"})
    escaped = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return escaped.replace("REQUEST-ID", "%[var(txn.id)]")


def _sections(text: str) -> Iterator[list[str]]:
    """The lines of each section, its name first."""
    found: list[str] = []
    for line in text.splitlines():
        if re.match(r"(global|defaults|frontend|backend|listen)\b", line) and found:
            yield found
            found = []
        found.append(line)
    yield found


def _section(lines: Sequence[str], front: FrontSettings, admin: str, closing: bool) -> list[str]:
    name = lines[0].strip()
    if name == "global":
        return _global(lines, front, admin)
    if name == "defaults":
        return _defaults(lines, front)
    if name in ("frontend prometheus", "listen stats"):
        return [] if front.private else [re.sub(r"(bind )\*?:", r"\g<1>127.0.0.1:", line) for line in lines]
    if name == FRONTEND:
        return _frontend(lines, front, closing)
    if name == "backend default_backend":
        kept = [line for line in lines if "http-request return" not in line]
        return [*kept, *_no_route()]
    return [_server(line, front) for line in lines]


def _global(lines: Sequence[str], front: FrontSettings, admin: str) -> list[str]:
    kept = [line for line in lines if not re.match(r"\s*(log|stats socket) ", line)]
    own = [
        f"    stats socket {admin} mode 600 level admin expose-fd listeners",
        f"    tune.memory.hot-size {front.hot}",
    ]
    if front.log is not None:
        own.append(f"    log {front.log} len 8192 format raw local0 info")
    return [*kept, *own]


def _defaults(lines: Sequence[str], front: FrontSettings) -> list[str]:
    replaced = r"\s*(errorfile|option (httplog|log-health-checks)|timeout (server|http-request))\b"
    kept = [line for line in lines if not re.match(replaced, line)]
    own = [
        f"    timeout server {front.answer_milliseconds}ms",
        f"    timeout http-request {front.milliseconds}ms",
        "    timeout check 4s",
        *_answers(front),
    ]
    return [*kept, *own]


def _answers(front: FrontSettings) -> Iterator[str]:
    """HAProxy's own answers, as problem details."""
    for status, (title, detail, again) in ANSWERS.items():
        text = problem_text(status, title, detail.format(timeout=front.timeout))
        retry = "" if again is None else f" hdr Retry-After {again}"
        yield f'    http-error status {status} content-type application/problem+json lf-string "{text}"{retry}'


def _frontend(lines: Sequence[str], front: FrontSettings, closing: bool) -> list[str]:
    binds = [line for line in lines if re.match(r"\s*bind ", line)]
    rest = [line for line in lines[1:] if line not in binds]
    if front.host is not None:
        place = f"[{front.host}]" if ":" in front.host else front.host
        binds = [re.sub(r"bind .*:(\d+)$", rf"bind {place}:\1", line) for line in binds]
    binds = [*binds, f"    bind unix@{front.folder}/again.sock mode 600 name again"]
    own = [*_rules(front, closing).splitlines(), *(_log_format() if front.log else ())]
    cut = next((i for i, line in enumerate(rest) if re.match(r"\s*(use|default)_backend ", line)), len(rest))
    choices = [line for line in own if line.lstrip().startswith("use_backend")]
    rules = [line for line in own if line not in choices]
    # HAProxy takes the rules of a request in this order, whichever line comes first, and warns where it is another
    return [lines[0], *binds, *rules, *rest[:cut], *choices, *rest[cut:]]


def _rules(front: FrontSettings, closing: bool) -> str:
    share = problem_text(429, "Too Many Requests", f"a client may send {PLACES // 2} large bodies at once; try again")
    return (
        (HERE / "front_rules.cfg.in")
        .read_text()
        .format(
            closing=_refuse_all() if closing else "",
            trusted="\n".join(_trusted(front)),
            keys="\n".join(_keys(front)),
            places=PLACES,
            fits=front.fits,
            share=share,
            most_of_one=PLACES // 2,
            milliseconds=front.milliseconds,
        )
    )


def _trusted(front: FrontSettings) -> Iterator[str]:
    """Whose word is taken for a client's address."""
    if front.trusted:
        yield f"    acl trusted src {' '.join(front.trusted)}"
        said = "{ req.hdr(X-Forwarded-For) -m found }"
        yield f"    http-request set-src req.hdr_ip(X-Forwarded-For,-1) if trusted {said} !again"


def _keys(front: FrontSettings) -> Iterator[str]:
    """Keys, before a body is read. The replica asks again, and knows whose they are."""
    if front.keys is None:
        return
    listed = f"{front.folder}/keys.lst"
    yield "    http-request set-var(txn.key) http_auth_bearer"
    yield "    http-request set-var(txn.key) req.hdr(X-API-Key) if { req.hdr(X-API-Key) -m found }"
    yield f"    acl known var(txn.key),sha2(256),hex -m str -f {listed}"
    yield f"    acl open path {' '.join((*OPEN, '/-/healthz', '/-/routes', ASKS_ITSELF))}"
    yield "    acl asks_first method OPTIONS"  # a browser's question before it sends a key
    for text, condition in (
        ("a key is needed: Authorization: Bearer KEY, or X-API-Key: KEY", "!{ var(txn.key) -m found }"),
        ("the key is not known", "!known"),
    ):
        yield (
            "    http-request return status 401 content-type application/problem+json hdr WWW-Authenticate Bearer "
            f'lf-string "{problem_text(401, "Unauthorized", text)}" if {condition} !open !asks_first !again'
        )
    yield "    http-request set-var(txn.client) var(txn.key),sha2(256),hex if known !again"


def _refuse_all() -> str:
    text = problem_text(503, "Service Unavailable", "the endpoint ends; another may take its place")
    return (
        "    http-request return status 503 content-type application/problem+json hdr Retry-After 5 "
        f'hdr Connection close lf-string "{text}" if !{{ so_name again }}'
    )


def _no_route() -> Iterator[str]:
    """Where no application is, none answers yet."""
    title, detail, again = ANSWERS[503]
    yield (
        f"    http-request return status 503 content-type application/problem+json hdr Retry-After {again} "
        f'lf-string "{problem_text(503, title, detail)}"'
    )


def _log_format() -> list[str]:
    """A line of JSON for what no replica saw. Its words %ST and so on are HAProxy's."""
    fields = (
        '"time":"%[date,utime(%Y-%m-%dT%H:%M:%SZ)]"',
        '"request_id":"%[var(txn.id)]"',
        '"method":"%[var(txn.method)]"',
        '"path":"%[var(txn.path),json(utf8s)]"',
        '"status":%ST',
        '"ms":%Ta',
        '"bytes":%U',
        '"client":"%ci"',
        '"by":"haproxy"',
    )
    words = ",".join(fields).replace("utime(%Y-%m-%dT%H:%M:%SZ)", "utime(%%Y-%%m-%%dT%%H:%%M:%%SZ)")
    escaped = words.replace('"', '\\"')
    return ["    log global", f'    log-format "{{{escaped}}}"']


def _server(line: str, front: FrontSettings) -> str:
    """A replica: what there is no room for waits."""
    if re.match(r"\s*server .* check observe ", line):
        return f"{line} maxconn {front.most}"
    return line


def _own_sections(front: FrontSettings) -> list[str]:
    return [
        "backend clients",
        "    stick-table type string len 64 size 100k expire 5m store conn_cur",
        "backend large",
        f"    server large unix@{front.folder}/large.sock check",
        f"    server direct unix@{front.folder}/again.sock backup",
    ]
