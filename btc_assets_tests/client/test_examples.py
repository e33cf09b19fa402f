"""The examples of the documentation and of the client's docstrings give what they say, on the store of `support/docs_store.py`."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest

import btc_assets as btc
import btc_assets.client
from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.stores import StoreUnderTest

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

PAGES = sorted(page.name for page in PROJECT.glob("docs/*.md") if any(">>>" in block for block in _BLOCK.findall(page.read_text())))
MODULES = sorted(module.name for module in pkgutil.walk_packages(btc_assets.client.__path__, "btc_assets.client."))

pytestmark = pytest.mark.xdist_group("docs_store")


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_of_a_page_give_what_it_says(name: str, docs_store: StoreUnderTest) -> None:
    page = (PROJECT / "docs" / name).read_text()
    examples = doctest.DocTestParser().get_doctest(_examples(page), {}, name, str(PROJECT / "docs" / name), 0)
    assert _failures([examples]) == ""


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_of_the_client_give_what_they_say(name: str, docs_store: StoreUnderTest) -> None:
    assert _failures(doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), globs={})) == ""


def test_an_example_that_is_wrong_is_found(docs_store: StoreUnderTest) -> None:
    page = "# A page\n\n```python\n>>> 1 + 1\n3\n```\n\n```python\nnot run\n```\n"
    found = _failures([doctest.DocTestParser().get_doctest(_examples(page), {}, "page", "page.md", 0)])
    assert 'line 4, in page\nFailed example:\n    1 + 1\nExpected:\n    3\nGot:\n    2\n' in found  # fmt: skip


def _examples(page: str) -> str:
    """The page's blocks of examples at their lines, and nothing else."""
    lines = ["" for _ in page.split("\n")]
    for block in _BLOCK.finditer(page):
        if ">>>" in block[1]:
            first = page[: block.start(1)].count("\n")
            code = block[1].split("\n")
            lines[first : first + len(code)] = code
    return "\n".join(lines)


def _failures(tests: Iterator[doctest.DocTest] | list[doctest.DocTest]) -> str:
    """What the examples gave that they should not have given. `btc` and an open `store` are there from the beginning."""
    found: list[str] = []
    runner = doctest.DocTestRunner(optionflags=_FLAGS, verbose=False)
    for test in tests:
        if test.examples:
            with btc.connect() as store:
                test.globs |= {"btc": btc, "store": store, "__name__": "__main__"}
                runner.run(test, out=found.append)
    return "".join(found)
