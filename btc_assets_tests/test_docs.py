"""The documents agree with the code: generated pages are current, and every link, command, file and make target in them exists.

The site is built from them without a warning, and needs no other host.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from btc_assets.cli.main import main as cli
from btc_assets_tests.support.paths import PROJECT

PAGES = sorted(
    [
        *PROJECT.glob("*.md"),
        *PROJECT.glob("docs/*.md"),
        *PROJECT.glob("sql/*.md"),
        *PROJECT.glob("terraform/*.md"),
        *PROJECT.glob("terraform/bootstrap/*.md"),
    ]
)
_FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def _names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(PROJECT)) for path in paths]


def _prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text())


def _code(page: Path) -> Iterator[str]:
    """What stands between backticks, and each line of the code blocks."""
    yield from re.findall(r"`([^`\n]+)`", _prose(page))
    for block in _FENCED.findall(page.read_text()):
        yield from block.replace("\\\n", " ").splitlines()[1:-1]


def _anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCED.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["settings.md", "commands.md", "dagster.md"])
def test_a_generated_page_is_current(name: str) -> None:
    pages = runpy.run_path(str(PROJECT / "docs" / "generate.py"))["PAGES"]
    assert (PROJECT / "docs" / name).read_text() == pages[name](), "run make docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built as `make docs` builds it: any warning is a failure."""
    pytest.importorskip("mkdocs", reason="the site needs mkdocs: make test installs it")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=PROJECT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stdout + built.stderr) == (0, "")
    (folder / "404.html").unlink()  # for servers: its links begin at their root
    return folder


@pytest.mark.xdist_group("site")
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    expected = {f"{page.stem}.html" for page in PROJECT.glob("docs/*.md") if page.name != "README.md"}
    assert expected | {"index.html", "contributing.html", "sql.html"} <= {page.name for page in site.glob("*.html")}
    tags = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=["']?([^"'\s>]+)""")
    loaded = {url for page in site.rglob("*.html") for url in tags.findall(page.read_text())}
    assert {url for url in loaded if re.match(r"(https?:)?//", url)} == set()


@pytest.mark.xdist_group("site")
def test_every_link_of_the_site_leads_to_a_file_of_it(site: Path) -> None:
    broken = [
        f"{page.name}: {target}"
        for page in site.rglob("*.html")
        for target in re.findall(r"""<a [^>]*?href=["']([^"'#]+)""", page.read_text())
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.xdist_group("site")
def test_no_markdown_is_left_in_the_text_of_the_site(site: Path) -> None:
    """Python-Markdown is stricter than GitHub: what belongs to an item of a list is indented by four spaces."""
    left = re.compile(r"```.{0,80}|<p>(?:[*-]|\d+\.) .{0,80}|\n[*-] .{0,80}|\n\|.{0,80}")
    found = {page.name: left.findall(_without_code(page.read_text())) for page in site.rglob("*.html")}
    assert {name: texts for name, texts in found.items() if texts} == {}


def _without_code(html: str) -> str:
    return re.sub(r"<(pre|script|style)\b.*?</\1>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    broken = []
    for _, target in _LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (fragment and linked.suffix == ".md" and fragment not in _anchors(linked)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_a_name_that_links_to_a_file_of_code_is_defined_in_that_file(page: Path) -> None:
    missing = []
    for text, target in _LINK.findall(_prose(page)):
        code = re.fullmatch(r"`([\w.]+)`", text)
        path = page.parent / target.partition("#")[0]
        if code and path.suffix in (".py", ".sql") and path.name != code[1]:
            name = code[1] if path.suffix == ".sql" else code[1].rpartition(".")[2]
            defined = rf"(?:\b{re.escape(name)}\b)" if path.suffix == ".sql" else rf"^\s*(?:(?:def|class) {name}\b|{name}(?:: [^=]+)? = )"
            if not (path.is_file() and re.search(defined, path.read_text(), re.MULTILINE)):
                missing.append(f"{code[1]} in {target}")
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_every_file_that_is_named_exists(page: Path) -> None:
    named = {
        path
        for code in _code(page)
        for path in re.findall(r"(?<![\w/.])(?:btc_assets|btc_assets_tests|benchmarks|sql|docs)/[\w./-]*", code)
    }
    assert [path for path in sorted(named) if not (PROJECT / path.rstrip(".")).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_every_make_target_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    named = {target for code in _code(page) for target in re.findall(r"(?:^|\s)make ([a-z][\w-]*)", code)}
    assert named - targets == set()


@pytest.mark.parametrize("page", PAGES, ids=_names(PAGES))
def test_every_command_that_is_named_exists_with_its_options(page: Path) -> None:
    wrong = []
    for code in _code(page):
        for text in re.findall(r"(?:^|[\s/(])btc-assets(?![\w=.-])((?: +[^#|;&)]+)?)", code):
            try:
                words = shlex.split(text)
            except ValueError:  # a quotation that goes on behind a sign which ends a command
                words = text.split()
            if problem := _problem(words):
                wrong.append(f"btc-assets {text.strip()}: {problem}")
    assert wrong == []


def _problem(words: list[str]) -> str | None:
    """What is wrong with the words behind `btc-assets`, if anything; values are not looked at."""
    command: click.Command = cli
    while isinstance(command, click.Group) and words and re.match("[a-z]", words[0]):
        found = command.commands.get(words[0])
        if found is None:
            return f"there is no command {words[0]}"
        command, words = found, words[1:]
    options = {name for option in command.params for name in option.opts} | {"--help", "-h", "--version"}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options]
    return f"there is no option {unknown[0]}" if unknown else None
