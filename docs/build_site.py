"""Hooks of mkdocs: what the site shows beside docs/*.md. `make docs` runs them; nothing here is imported elsewhere.

README, CHANGELOG, CONTRIBUTING and SECURITY become pages as they are. The reference has a page for each folder of the
packages, found by walking them, so a module that moves needs no edit here. Figures of results/report lie outside
docs/, as the report is written there, and are copied in.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("resnet", "pipelines", "serve")
FRONT = {"README": "index", "CHANGELOG": "changes", "CONTRIBUTING": "contributing", "SECURITY": "security"}
FIGURES = ROOT / "results" / "report" / "figures"


def folders() -> dict[str, list[str]]:
    """Dotted name of each folder of the packages -> its modules, in alphabetical order."""
    found: dict[str, list[str]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name not in ("__init__.py", "__main__.py") and "__pycache__" not in path.parts:
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found.setdefault(module.rpartition(".")[0], []).append(module)
    return dict(sorted(found.items()))


def reference_page(folder: str, modules: list[str]) -> str:
    """Markdown of a folder's page: each module by mkdocstrings."""
    parts = [f"# {folder}\n", f"The modules of `{folder.replace('.', '/')}/`, from their docstrings.\n"]
    return "\n".join([*parts, *(f"::: {module}\n" for module in modules)])


def front_page(name: str) -> str:
    """A file of the root, with links as they are inside the site."""
    text = (ROOT / f"{name}.md").read_text().replace("](docs/", "](")
    for file, page in FRONT.items():
        text = text.replace(f"]({file}.md)", f"]({page}.md)")
    return text


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Complete the navigation: the pages of the reference, package by package."""
    pages: dict[str, list[Any]] = {}
    for folder in folders():
        pages.setdefault(folder.partition(".")[0], []).append({folder: f"reference/{folder}.md"})
    assert config.nav is not None
    for entry in config.nav:
        if "Reference" in entry:
            entry["Reference"] = [{package: below} for package, below in pages.items()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that do not lie in docs/."""
    for name, page in FRONT.items():
        files.append(File.generated(config, f"{page}.md", content=front_page(name)))
    for folder, modules in folders().items():
        files.append(File.generated(config, f"reference/{folder}.md", content=reference_page(folder, modules)))
    for picture in sorted(FIGURES.glob("*.png")):
        files.append(File.generated(config, f"figures/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to the report's figures, as docs/results.md has them, lead to their copies."""
    return re.sub(r"\]\(\.\./results/report/figures/", "](figures/", markdown)
