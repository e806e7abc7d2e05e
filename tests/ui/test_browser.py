"""The whole path in a real browser: compose, watch, compare, publish."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from morphing.runs.leases import read_workers
from morphing.runs.run import Run, list_runs
from morphing.runs.selection import selection
from tests.ui.conftest import RunningApp

SHOTS = Path(__file__).resolve().parents[1] / "screenshots"
SECOND = 1000

pytestmark = pytest.mark.slow


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def set_number(page: Page, selector: str, value: int) -> None:
    field = page.locator(f"{selector} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def open_page(browser: Browser, url: str) -> Page:
    page = browser.new_page(viewport={"width": 1440, "height": 900})
    page.set_default_timeout(60 * SECOND)
    page.goto(url)
    expect(page.locator("#models .m-card").first).to_be_attached()
    return page


def test_from_sources_to_a_pushed_merge(browser: Browser, app: RunningApp) -> None:
    expect.set_options(timeout=60 * SECOND)
    page = open_page(browser, app.url)
    strangers: list[str] = []
    page.on(
        "request",
        lambda r: (
            None if r.url.startswith((app.url, "data:", "blob:")) else strangers.append(r.url)
        ),
    )

    # A bad input is one sentence, and nothing chosen is lost.
    page.locator("#add-model textarea, #add-model input").fill("nobody/nothing")
    page.locator("#add-source").click()
    expect(page.locator("#compose-note .m-error")).to_contain_text("nobody/nothing")
    expect(page.locator("#models .m-card")).to_have_count(4)

    # Data of one's own: the guess is seen filled in, mapped otherwise, and taken.
    sums = app.runs.parent / "sums.csv"
    rows = "".join(f"{n} plus {n + 3}?,{2 * n + 3},<b>sum</b> {n}\n" for n in range(10, 42))
    sums.write_text(f"question,answer,hint\n{rows}")
    with page.expect_file_chooser() as chooser:
        page.locator("#own-upload").click()
    chooser.value.set_files(sums)
    examples = page.locator("#own-view .m-example")
    expect(examples).to_have_count(3)
    expect(examples.first).to_contain_text("10 plus 13?")
    expect(examples.first.locator(".m-expected")).to_contain_text("23")
    page.locator("#own-view [data-value='prompt:hint']").click()
    expect(examples.first).to_contain_text("<b>sum</b> 10")
    page.locator("#own-view [data-value='unused:hint']").click()
    expect(examples.first).not_to_contain_text("sum")
    page.get_by_text("Change how it is asked and scored").click()
    # What the last click changed arrives before anything is typed over it.
    expect(page.locator("#own-prompt textarea")).to_have_value(re.compile("question"))
    page.wait_for_timeout(2 * SECOND)
    page.locator("#own-prompt textarea").fill("{{ question")
    expect(page.locator("#own-view .m-error")).to_contain_text("prompt")
    page.locator("#own-prompt textarea").fill("{{ question }}")
    # One change is answered before the next is made, as a person waits to see what a change did.
    expect(page.locator("#own-view .m-error")).to_have_count(0)
    page.wait_for_timeout(2 * SECOND)
    set_number(page, "#own-tokens", 5)
    page.wait_for_timeout(2 * SECOND)
    page.locator("#own-take").click()
    expect(page.locator("#own")).to_be_hidden()
    expect(page.locator("#benchmarks .m-card.objective")).to_have_count(4)

    # The catalogue is looked through; what runs code is off, and says why.
    page.locator("#find-benchmark textarea, #find-benchmark input").fill("code")
    expect(page.locator("#catalogue [data-value=humaneval]").first).to_be_disabled()
    expect(page.locator("#catalogue .m-refused").first).to_contain_text("--allow-code")
    expect(page.locator("#catalogue [data-value=gsm8k]")).to_have_count(0)

    # Launch a small search on the zoo.
    page.locator("#samplers summary").click()
    page.locator("#samplers [data-value=random]").click()
    page.locator("#methods [data-value=linear]").click()
    expect(page.locator("#methods [data-value=linear]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#samplers [data-value=random]")).to_have_attribute("aria-pressed", "true")
    set_number(page, "#budget", 40)
    set_number(page, "#samples", 384)
    page.get_by_text("More settings").click()
    set_number(page, "#holdout", 32)
    page.locator("#launch").click()
    page.wait_for_url(re.compile(r"[?&]run=zoo-"))
    chip = page.locator("#run-chip")
    expect(chip).to_contain_text(re.compile("Preparing|Searching"))
    assert len(list_runs(app.runs)) == 1

    # The front appears while it runs; pause holds it where it is.
    points = page.locator(".m-plot-box .scatterlayer .point")
    expect(points.first).to_be_attached(timeout=120 * SECOND)
    page.locator("#pause").click()
    expect(chip).to_contain_text("Paused")
    name = page.locator("#progress h1").inner_text()

    # A reload and a second tab find the run where it is.
    page.reload()
    expect(chip).to_contain_text("Paused")
    expect(page.locator("#progress h1")).to_have_text(name)
    second = open_page(browser, app.url)
    expect(second.locator("#progress h1")).to_have_text(name)
    second.locator("#resume").click()
    second.close()
    expect(chip).to_contain_text("Searching")

    # A killed search shows as stopped, and goes on from where it was.
    kill_search(app.runs)
    expect(chip).to_contain_text("Stopped")
    page.locator("#resume").click()
    expect(chip).to_contain_text("Finished 40/40", timeout=240 * SECOND)

    # A click on a point, or on a row, brings a trial into focus.
    expect(page.locator("#trial-facts h2")).to_contain_text("★ knee")
    other = page.locator("#front-table tr[data-do=focus]:not(.focus)").first
    number = other.get_attribute("data-value")
    # Points of few samples lie on top of each other, so plotly's own click event names one.
    page.locator(".m-plot-box").first.evaluate(
        "(box, number) => box.emit('plotly_click', {points: [{customdata: number}]})", number
    )
    expect(page.locator("#trial-facts h2")).to_contain_text(f"Trial {number}")
    row = page.locator("#front-table tr[data-do=focus]").last
    row.locator(".m-link").click()
    expect(page.locator("#trial-facts h2")).to_contain_text(row.locator(".m-link").inner_text())
    expect(page.get_by_text("merge_method")).to_be_visible()

    SHOTS.mkdir(exist_ok=True)

    # Answer by answer, against another.
    page.get_by_role("tab", name="Differences").click()
    expect(page.locator("#differences .m-lead")).to_contain_text("on the same")
    choose = page.locator("#against input")
    choose.click()
    page.get_by_role("option", name="word-games").click()
    expect(page.locator("#differences .m-lead")).to_contain_text("word-games")
    expect(page.locator("#differences tbody tr").first).to_be_visible()
    page.screenshot(path=SHOTS / "differences-1440-light.png", full_page=True)

    # Two members of the front and a source answer side by side.
    for tick in (0, 1):
        page.locator("#front-table tr[data-do=focus] .m-tick").nth(tick).click()
        expect(page.locator("#front-table .m-tick[aria-checked=true]")).to_have_count(tick + 1)
    page.locator("#front-table .m-tick[data-value='zoo:english-math']").click()
    tab(page, "Compare")
    expect(page.locator(".m-column:visible")).to_have_count(3)
    page.locator("#examples .m-pill").first.click()
    expect(page.locator("#message textarea")).not_to_be_empty()
    page.locator("#send").click()
    for column in range(3):
        reply = page.locator(f"#chat-{column} .bot").last
        expect(reply).to_have_text(re.compile(r"[^\s…]"), timeout=120 * SECOND)
    # The specialist in English arithmetic answers a question of it with a number.
    expect(page.locator("#chat-2 .bot").last).to_contain_text(re.compile(r"\d"))

    # What is said is text: no tag, no Markdown, no link of it comes alive.
    said = "<img src=x onerror=\"document.title='owned'\"> <b>1 + 1</b> [x](javascript:alert(1))"
    page.locator("#message textarea").fill(said)
    page.locator("#send").click()
    expect(page.locator("#chat-0 .user").last).to_contain_text("<b>1 + 1</b>")
    expect(page.locator("#chat-2 .bot")).to_have_count(2, timeout=120 * SECOND)
    assert page.locator("#chat-0 .message b, #chat-0 .message img, #chat-0 .message a").count() == 0
    assert page.title() == "Morphing"

    page.screenshot(path=SHOTS / "conversation-1440-light.png", full_page=True)

    # One is pushed, with the visitor's own login, and its address shown.
    tab(page, "Publish")
    expect(page.locator("#who")).to_contain_text("alice")
    repo = page.locator("#repo-id textarea, #repo-id input")
    expect(repo).to_have_value(re.compile("^alice/zoo-"))
    repo.fill("mallory/stolen")
    page.locator("#push").click()
    expect(page.locator("#push-result .m-error")).to_contain_text("mallory")
    repo.fill("alice/from-the-app")
    page.locator("#push").click()
    link = page.locator("#push-result a")
    expect(link).to_have_attribute("href", re.compile("alice/from-the-app"), timeout=240 * SECOND)

    from huggingface_hub import HfApi

    info = HfApi(token="hf_alice").model_info("alice/from-the-app")
    assert info.private
    assert "model.safetensors" in {file.rfilename for file in info.siblings or []}
    assert not strangers

    take_screenshots(page, app.url + f"?run={name}")


def test_two_workers_lay_paths_and_the_front_goes_to_the_holdout(
    browser: Browser, app: RunningApp
) -> None:
    expect.set_options(timeout=60 * SECOND)
    page = open_page(browser, app.url)

    # What cannot be is said before it is launched; a click mends it.
    page.locator("#benchmarks [data-value=parameters]").click()
    expect(page.locator("#summary .m-error")).to_contain_text("same parameters")
    page.locator("#space [data-value=dfs]").click()
    expect(page.locator("#summary")).to_contain_text("18 numbers a recipe")
    expect(page.locator("#summary .m-error")).to_have_count(0)
    expect(page.locator("#methods")).to_be_hidden()
    page.locator("#samplers summary").click()
    page.locator("#samplers [data-value=sobol]").click()
    expect(page.locator("#summary")).to_contain_text("Sobol")
    for name, value in (("budget", 6), ("samples", 32), ("workers", 2)):
        set_number(page, f"#{name}", value)
    page.get_by_text("More settings").click()
    set_number(page, "#holdout", 32)
    page.locator("#sources-first input").click()
    page.locator("#launch").click()
    page.wait_for_url(re.compile(r"[?&]run=zoo-"))

    # Both workers are seen at it.
    expect(page.locator("#progress .m-workers li")).to_have_count(2)
    expect(page.locator("#run-chip")).to_contain_text("Finished 6/6", timeout=180 * SECOND)
    (folder,) = app.runs.iterdir()
    assert len(read_workers(folder)) == 2
    assert Run(folder).spec.search.space.strategy == "dfs"

    # A path is told in a line; what hypervolume is measured by is stated.
    row = page.locator("#front-table tr[data-do=focus]").filter(has_text="first: english-math")
    expect(row.locator(".m-strip i")).to_have_count(3)
    row.locator(".m-link").click()
    expect(page.locator("#trial-facts .m-path")).to_have_text("english-math 0–2")
    page.locator("#scales summary").click()
    expect(page.locator("#scales tr")).to_have_count(6)

    # The front is scored on samples the search never saw.
    front = page.locator("#front-table tr[data-do=focus]").count()
    expect(page.locator("#holdout-table")).to_contain_text("Not scored yet")
    page.locator("#score-holdout").click()
    expect(page.locator("#score-holdout")).to_have_text("All scored", timeout=180 * SECOND)
    expect(page.locator("#holdout-table tr[data-do=focus]")).to_have_count(front)
    expect(page.locator("#holdout-table tr.m-reference")).to_have_count(4)
    chosen = selection(Run(folder))
    assert chosen is not None and not chosen.unscored and len(chosen.members) == front

    SHOTS.mkdir(exist_ok=True)
    for theme, width in (("light", 1440), ("dark", 390)):
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(f"{app.url}?run={folder.name}&__theme={theme}")
        expect(page.locator("#holdout-table .m-forest").first).to_be_visible()
        page.wait_for_timeout(1200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.screenshot(path=SHOTS / f"paths-{width}-{theme}.png", full_page=True)


def kill_search(runs: Path) -> None:
    """``kill -9`` for the process that works on the one run in ``runs``."""
    (folder,) = (run.folder for run in list_runs(runs))
    for process in psutil.process_iter(["cmdline"]):
        if str(folder) in (process.info["cmdline"] or []):
            process.kill()
            return
    raise AssertionError("no process works on the run")


def take_screenshots(page: Page, url: str) -> None:
    """Every tab, wide and narrow, light and dark, into the git-ignored folder."""
    for theme in ("light", "dark"):
        for width in (1440, 390):
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"{url}&__theme={theme}")
            expect(page.locator("#progress h1")).to_be_visible()
            for name in ("Compose", "Watch", "Compare", "Publish"):
                tab(page, name)
                page.wait_for_timeout(1200)
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                page.screenshot(path=SHOTS / f"{name.lower()}-{width}-{theme}.png", full_page=True)
