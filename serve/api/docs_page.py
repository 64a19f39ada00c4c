"""/docs: the OpenAPI document as a page that needs no script, with command lines that work as they stand."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

Api = Mapping[str, Any]
KEY = " -H 'Authorization: Bearer KEY'"
TENSOR = '{"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["%s"]}]}'
# What a command sends, by the end of its path; {url} and {key} are filled in
COMMANDS = {
    "/predict": (
        "curl --data-binary @photo.jpg{key} {url}",
        "curl -F image=@one.jpg -F image=@two.png{key} '{url}?top_k=3'",
        """printf '{{"image": "%s"}}' "$(base64 < photo.jpg | tr -d '\\n')" | curl -d @-{key} {url}""",
    ),
    "/search": ("curl --data-binary @photo.jpg{key} '{url}?k=5'",),
    "/detect": (
        "curl --data-binary @photo.jpg{key} {url}",
        "curl --data-binary @photo.jpg{key} '{url}?min_score=0.8'",
    ),
    "/segment": (
        "curl --data-binary @photo.jpg{key} {url}",
        "curl -H 'Accept: image/png' -o mask.png --data-binary @photo.jpg{key} {url}",
    ),
    "/embed": ("curl --data-binary @photo.jpg{key} {url}",),
    "/infer": (
        f"""printf '{TENSOR.replace("{", "{{").replace("}", "}}")}' "$(base64 < photo.jpg | tr -d '\\n')" """
        "| curl -H 'Content-Type: application/json' -d @-{key} {url}",
    ),
    "/index": ("curl -X POST{key} {url}",),
}
MOST_DEPTH = 4  # of schemas in schemas


def render(api: Api, template: str, origin: str, model: str, version: str, keys: bool) -> str:
    """The page. origin: scheme and host as the reader's browser knows them; keys: whether commands need one."""
    groups: dict[str, list[str]] = {}
    for path, operations in api["paths"].items():
        for method, operation in operations.items():
            url = origin + path.replace("{name}", model).replace("{version}", version)
            group = (operation.get("tags") or ["other"])[0]
            groups.setdefault(group, []).append(_route(api, path, method, operation, url, keys))
    routes = "".join(f"<h2>{escape(name[0].upper() + name[1:])}</h2>{''.join(all_)}" for name, all_ in groups.items())
    words = {"TITLE": escape(api["info"]["title"]), "ORIGIN": escape(origin), "ROUTES": routes, "KEYS": _keys(keys)}
    for name, value in words.items():
        template = template.replace(f"{{{{{name}}}}}", value)
    return template


def _keys(asked: bool) -> str:
    if asked:
        return "This endpoint asks for a key: <code>Authorization: Bearer KEY</code>, or <code>X-API-Key: KEY</code>."
    return "This endpoint asks for no key."


def _route(api: Api, path: str, method: str, operation: Api, url: str, keys: bool) -> str:
    """One route, closed: its method, path and purpose; open: commands, parameters, bodies, answers."""
    anchor = escape(operation["operationId"])
    gated = keys and bool(operation.get("security"))
    lines = "\n".join(commands(path, method, url, gated))
    parts = [f"<pre>{escape(lines)}</pre>"]
    if parameters := operation.get("parameters"):
        rows = [(f"{p['name']} ({p['in']})", _told(api, p["schema"]), p.get("description", "")) for p in parameters]
        parts += ["<h3>Parameters</h3>", _table(rows)]
    if body := operation.get("requestBody"):
        parts += ["<h3>Body</h3>", f"<p>{escape(body.get('description', ''))}</p>", _contents(api, body["content"])]
    parts.append("<h3>Answers</h3>")
    for code, answer in sorted(operation["responses"].items()):
        if code < "300":
            parts += [
                f"<p><b>{code}</b></p>",
                _contents(api, answer.get("content", {})),
            ]
    errors = [(code, answer["description"]) for code, answer in operation["responses"].items() if code >= "300"]
    if errors:
        parts += ["<p>Errors are problem details, with the reason in <code>detail</code>.</p>", _table(sorted(errors))]
    head = (
        f"<b>{method.upper()}</b> <code>{escape(path)}</code> <span>{escape(operation.get('description', ''))}</span>"
    )
    return f'<details id="{anchor}"><summary>{head}</summary>{"".join(parts)}</details>'


def commands(path: str, method: str, url: str, keys: bool) -> Iterator[str]:
    """Command lines that ask a route."""
    key = KEY if keys else ""
    if method == "get":
        yield f"curl{key} {url}"
        return
    for line in next(lines for end, lines in COMMANDS.items() if path.endswith(end)):
        yield line.format(key=key, url=url)


def _contents(api: Api, contents: Api) -> str:
    """Media types of one schema together, each schema as a table of its fields."""
    by_schema: dict[str, list[str]] = {}
    for kind, content in contents.items():
        by_schema.setdefault(json.dumps(content.get("schema", {})), []).append(kind)
    return "".join(
        f"<p><code>{escape(', '.join(kinds))}</code></p>{_schema(api, json.loads(schema))}"
        for schema, kinds in by_schema.items()
    )


def _schema(api: Api, schema: Api) -> str:
    """Purpose, fields and an example."""
    told = _resolved(api, schema)
    purpose = f"<p>{escape(told['description'])}</p>" if "description" in told else ""
    rows = list(_fields(api, schema))
    shown = "".join(f"<pre>{escape(json.dumps(example, indent=1))}</pre>" for example in told.get("examples", []))
    return purpose + (_table(rows) if rows else "") + shown


def _resolved(api: Api, schema: Api) -> Api:
    name = schema.get("$ref", "").rpartition("/")[2]
    return api["components"]["schemas"][name] if name else schema


def _fields(api: Api, schema: Api, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, str, str]]:
    """(name, type, description) of each field, those of objects inside with their path."""
    schema = _resolved(api, schema)
    for choice in schema.get("oneOf", []):
        yield from _fields(api, choice, prefix, depth)
    if schema.get("type") == "array":
        yield from _fields(api, schema.get("items", {}), prefix or "[].", depth)
    for name, inner in schema.get("properties", {}).items():
        inner = _concrete(inner)
        several = inner.get("type") == "array"
        path = f"{prefix}{name}{'[]' if several else ''}"
        note = inner.get("description", "")
        yield path, _told(api, inner), note
        if depth < MOST_DEPTH:
            yield from _fields(api, inner, f"{path}.", depth + 1)


def _concrete(schema: Api) -> Api:
    """The schema beside null, where it is a choice of the two."""
    choices = [each for each in schema.get("anyOf", []) if each.get("type") != "null"]
    return {**schema, **choices[0]} if len(choices) == 1 else schema


def _told(api: Api, schema: Api) -> str:
    """A type in words: `integer, 1 to 1000, default 5`."""
    concrete = _resolved(api, _concrete(schema))
    kind = concrete.get("type", "any")
    if kind == "array":
        kind = f"list of {_resolved(api, concrete.get('items', {})).get('type', 'any')}s"
    words = [concrete.get("format", kind)]
    if "minimum" in concrete and "maximum" in concrete:
        words.append(f"{concrete['minimum']} to {concrete['maximum']}")
    if schema.get("default") is not None and not isinstance(schema["default"], dict | list):
        words.append(f"default {schema['default']}")
    if any(each.get("type") == "null" for each in schema.get("anyOf", [])):
        words.append("or null")
    return ", ".join(str(word) for word in words)


def _table(rows: list[Any]) -> str:
    cells = ("".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in rows)
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
