"""What the documentation site shows besides docs/: pages of other folders, and the files of code that pages link to.

A hook of MkDocs (mkdocs.yml). Pages are written with links that work in the repository; those that leave docs/ are turned here, and the
site holds what they lead to: a page, a picture, or the text of a file of code.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

PROJECT = Path(__file__).parent.parent
_LOG = logging.getLogger("mkdocs.hooks.site_pages")  # a warning of it fails a strict build

# Pages from outside docs/, and what they are called in the site.
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "sql/README.md": "sql.md",
    "terraform/README.md": "terraform.md",
    "terraform/bootstrap/README.md": "bootstrap.md",
}
_LIST = "docs/README.md"  # the list of pages: in the site, the navigation
_FENCE = re.compile(r"^ *```")
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside docs/, and whatever a page links to."""
    if listed := files.get_file_from_path("README.md"):
        files.remove(listed)
    for path, name in PAGES.items():
        files.append(File.generated(config, name, abs_src_path=str(PROJECT / path)))
    for page in list(files.documentation_pages()):
        for target in _links(page.content_string):
            linked = _target(_source(page.src_uri), target)
            if linked and (copied := _copied(linked)) and files.get_file_from_path(copied) is None:
                if (PROJECT / linked).exists():
                    files.append(_copy(config, linked, copied))
                else:
                    _LOG.warning("%s links to %s, which does not exist.", page.src_uri, target)
    return files


def on_page_markdown(markdown: str, /, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn the links of a page to where the site has what they lead to. The overview has a wide picture and no table of contents."""
    if page.file.src_uri == "index.md":
        page.meta["hide"] = ["toc"]
    source = _source(page.file.src_uri)
    sessions = markdown.replace("```python\n>>> ", "```pycon\n>>> ")  # colored as Python's prompt and its answers
    return _with_links(sessions, lambda target: _turned(source, target, page.file.src_uri))


def _source(name: str) -> str:
    """Path in the repository of a page of the site."""
    return next((source for source, page in PAGES.items() if page == name), f"docs/{name}")


def _turned(source: str, target: str, name: str) -> str:
    path, (_, sign, fragment) = _target(source, target), target.partition("#")
    if path is None:
        return target
    found = _copied(path) or ("index.md" if path == _LIST else PAGES.get(path) or path.removeprefix("docs/"))
    return os.path.relpath(found, PurePosixPath(name).parent) + ("" if _copied(path) else sign + fragment)


def _target(source: str, target: str) -> str | None:
    """Path in the repository that a link leads to; a folder's is that of its README, if it has one. None for another host or an anchor."""
    path = target.partition("#")[0]
    if not path or re.match(r"[a-z]+:", path):
        return None
    found = os.path.normpath(f"{PurePosixPath(source).parent}/{path}")
    readme = f"{found}/README.md"
    return readme if (PROJECT / readme).is_file() else found


def _copied(path: str) -> str | None:
    """Name in the site of a file or folder that no page shows and that is not in docs/."""
    if path in PAGES or (path.startswith("docs/") and not path.endswith(".py")):
        return None
    return path if path.endswith(".png") else f"code/{path}.txt"


def _copy(config: MkDocsConfig, path: str, name: str) -> File:
    file = PROJECT / path
    if file.is_dir():  # the names of what is in it
        return File.generated(config, name, content="".join(f"{path}/{one.name}\n" for one in sorted(file.iterdir())))
    return File.generated(config, name, abs_src_path=str(file))


def _links(markdown: str) -> list[str]:
    found: list[str] = []

    def note(target: str) -> str:
        found.append(target)
        return target

    _with_links(markdown, note)
    return found


def _with_links(markdown: str, turn: Callable[[str], str]) -> str:
    """Markdown with each link outside code blocks replaced."""
    lines, code = [], False
    for line in markdown.split("\n"):
        fence = _FENCE.match(line)
        code ^= bool(fence)
        lines.append(line if code or fence else _LINK.sub(lambda match: match[1] + turn(match[2]) + match[3], line))
    return "\n".join(lines)
