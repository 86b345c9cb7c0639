"""The pages in a real browser, from file://: light and dark, wide and narrow, without a network."""

import shutil
import subprocess
import tarfile
from importlib.util import find_spec

import pytest
from whole_run import whole_run

from ehdnas.pipeline.report import compare, report
from ehdnas.workspace import Workspace

AXE = "axe-core@4.14.1"  # what npm has; it looks for what people with disabilities cannot use
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "<script>alert(1)</script>"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed"),
    pytest.mark.skipif(find_spec("playwright") is None, reason="playwright is not installed"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    workspace = Workspace(tmp_path_factory.mktemp("pages"))
    first, second = whole_run(workspace), whole_run(workspace)
    return {"report": report(workspace, first), "comparison": compare(workspace, [first, second])}


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    home = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("npm, which has axe-core, is not here")
    packed = subprocess.run(["npm", "pack", AXE], cwd=home, capture_output=True, text=True, timeout=120)
    if packed.returncode:
        pytest.skip(f"npm cannot fetch {AXE}: {packed.stderr.strip().splitlines()[-1]}")
    with tarfile.open(next(home.glob("*.tgz"))) as archive:
        archive.extractall(home, filter="data")
    return (home / "package" / "axe.min.js").read_text()


@pytest.fixture(params=[("light", 1280), ("light", 400), ("dark", 1280), ("dark", 400)], ids=str)
def opened(request, browser, pages):
    """Open a page by its name, and return it with what it logged, asked of a network and overflowed by."""
    scheme, width = request.param
    # The page's own policy would keep axe out; without it the page could only do more.
    context = browser.new_context(
        color_scheme=scheme, viewport={"width": width, "height": 900}, bypass_csp=True
    )
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(f"dialog {dialog.message}"))
    page.on("request", lambda one: asked.append(one.url))

    def go(name):
        page.goto(pages[name].as_uri())
        return page, said, asked

    yield go
    context.close()


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_a_page_opens_and_shows_everything(opened, axe, name):
    page, said, asked = opened(name)
    assert said == []
    assert [url for url in asked if not url.startswith("file://")] == [] and len(asked) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    for figure in page.query_selector_all("figure"):
        assert figure.query_selector("figcaption strong").inner_text().strip()
        assert figure.query_selector("svg").get_attribute("aria-label")
    if name == "report":
        assert HOSTILE in page.inner_text("main")
    page.evaluate(axe)
    found = page.evaluate("axe.run()")["violations"]
    serious = [one for one in found if one["impact"] in ("serious", "critical")]
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in serious] == []


def test_the_policy_lets_nothing_in(browser, pages):
    page = browser.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(pages["report"].as_uri())
    ran = page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1';"
        " document.body.append(s); return window.ran === 1 }"
    )
    assert not ran and any("Content Security Policy" in text for text in refused)
    page.close()
