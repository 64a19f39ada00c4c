"""The pages for people, and what a browser may load for them."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel

from serve import metrics
from serve.api import docs_page
from serve.api.http_schema import GATED
from serve.settings import Args
from serve.versions.served_models import Models

PANELS = ("camera/camera_panel", "retrieval/search_panel")  # parts of the page beside the images that are dropped on it
Gather = Callable[[], Awaitable[Sequence[Sequence[Metric]]]]


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


class Loading(BaseModel):
    """The model is loaded."""

    status: str = "ready"
    model: str
    version: str


def people(models: Models, args: Args, gather: Gather) -> APIRouter:
    """Health, metrics, the page and the documentation."""
    routes = APIRouter()
    folder = Path(__file__).parent
    pages = {name: (folder / f"{name}.html").read_text() for name in ("page", "docs")}
    pages["page"] = with_panels(pages["page"], [(folder / f"{name}.html").read_text() for name in PANELS])

    def page(name: str) -> HTMLResponse:
        return HTMLResponse(pages[name], headers={"Content-Security-Policy": content_policy(pages[name])})

    @routes.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return page("page")

    @routes.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        origin, version = str(request.base_url).rstrip("/"), models.stable.version
        with_keys = args.api_key_file is not None
        html = docs_page.render(request.app.openapi(), pages["docs"], origin, args.name, version, with_keys)
        return HTMLResponse(html, headers={"Content-Security-Policy": content_policy(html)})

    @routes.get("/healthz", tags=["health"])
    async def healthz() -> Alive:
        """True if the process answers."""
        return Alive()

    @routes.get("/readyz", tags=["health"])
    async def readyz() -> Loading:
        """True if the model is loaded."""
        return Loading(model=args.name, version=models.stable.version)

    @routes.get("/metrics", tags=["health"], response_class=PlainTextResponse, responses=GATED)
    async def scrape() -> Response:
        """Counters and histograms of all replicas, in Prometheus form."""
        return Response(metrics.exposition(await gather()), media_type=metrics.MEDIA_TYPE)

    return routes


def with_panels(page: str, panels: Sequence[str]) -> str:
    """The page with its parts: the markup of each before the results, its script behind the page's own."""
    parts = [panel.partition("<script>") for panel in panels]
    page = page.replace("{{PANELS}}", "".join(markup for markup, _, _ in parts))
    return page.replace("{{SCRIPTS}}", "".join(f"{tag}{script}" for _, tag, script in parts))


def content_policy(html: str) -> str:
    """A page's own script and nothing from elsewhere: the Content-Security-Policy of a self-contained page."""
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    allowed = " ".join(hashes) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src 'self' blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
