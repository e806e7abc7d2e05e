"""Remake docs/screenshot.png: ``python -m tests.ui.screenshots``.

Searches the zoo with the defaults, then takes the tab Watch as a visitor sees it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.ui.process import CHROMIUM_ARGUMENTS, ROOT, serve_app

PICTURE = ROOT / "docs" / "screenshot.png"


def main() -> None:
    """Search, serve, shoot."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        command = [sys.executable, "-m", "morphing", "search", "--run", str(runs / "zoo")]
        subprocess.run(command, cwd=ROOT, check=True)
        environment = {**os.environ, "MORPHING_RUNS": str(runs)}
        with serve_app(environment, Path(folder) / "app.log") as url, sync_playwright() as player:
            chromium = player.chromium.launch(
                executable_path=os.environ.get("MORPHING_CHROMIUM") or shutil.which("chromium"),
                args=CHROMIUM_ARGUMENTS,
            )
            page = chromium.new_page(viewport={"width": 1440, "height": 1330})
            page.goto(f"{url}?run=zoo&__theme=light")
            page.locator(".m-plot-box .point").first.wait_for()
            page.locator("#front-table .m-tick").nth(0).click()
            page.locator("#front-table .m-tick").nth(1).click()
            page.wait_for_timeout(2000)
            page.screenshot(path=PICTURE)
            chromium.close()


if __name__ == "__main__":
    main()
