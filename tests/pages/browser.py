"""A page in headless Chromium: what it looks like after a script, and what the console says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = ("background-networking", "component-update", "sync", "gpu", "extensions", "default-apps")
PROBE = """
<script>
window.onerror = (message) => { document.title = 'ERROR ' + message; };
%s
</script>
"""


def needs_browser() -> str:
    """Returns the browser's path, or skips the test."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium here: apt-get install chromium runs this test")
    return found


def opened(html: str, folder: Path, script: str = "", width: int = 1280) -> tuple[str, list[str]]:
    """Opens a page and runs a script on it.

    Args:
        html: the page.
        folder: for the page and the browser's profile.
        script: runs after the page's own.
        width: of the window.

    Returns:
        The page as the script left it, and what the console said.
    """
    path, profile = folder / "page.html", folder / "profile"
    path.write_text(html.replace("</body>", PROBE % script + "</body>"), encoding="utf-8")
    shutil.rmtree(profile, ignore_errors=True)
    profile.mkdir()
    command = [needs_browser(), "--headless", "--no-sandbox", f"--user-data-dir={profile}"]
    command += [f"--disable-{name}" for name in QUIET]
    command += ["--enable-logging=stderr", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=120, errors="replace"
    )
    assert "<body" in done.stdout, done.stderr[-2000:]
    said = re.findall(r"CONSOLE[^\]]*\]\s*(.*)", done.stderr)
    return done.stdout, said
