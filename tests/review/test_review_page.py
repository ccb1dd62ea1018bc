"""The page in a browser, where one is installed: it draws its task, and a hostile caption stays text."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from builders.systems_folder import write_systems

from stylear.curate.review.folder_tasks import FolderMaterial
from stylear.curate.review.server import serve_review
from stylear.curate.review.session import Session
from stylear.curate.review.tasks import order_tasks

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on PATH")
def test_the_page_shows_its_task_and_runs_nothing_of_a_caption(tmp_path: Path) -> None:
    assert BROWSER is not None
    folder = write_systems(tmp_path / "drawn", prompts=["one"])
    quoted = HOSTILE.replace('"', '""')
    rows = [f'{s}/one.png,{s},"{quoted}",references/one.png' for s in ("ours", "theirs")]
    (folder / "pictures.csv").write_text("\n".join(["file,system,prompt,reference", *rows]))
    material = FolderMaterial(folder)
    session = Session(folder, order_tasks(material.tasks("prefer"), 0, "ann", None), "ann")
    with serve_review(session, material) as url:
        result = subprocess.run(
            [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
             f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
             "--dump-dom", url],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    page = result.stdout
    assert "<title>Review</title>" in page
    assert html.escape(HOSTILE, quote=False) in page
    assert "onerror" not in re.sub(r"&lt;.*&gt;", "", page)
    assert "0 of 1 answered" in page
    task = next(iter(session.tasks))
    assert re.findall(r'src="([^"]+)"', page) == [
        "page.js", f"reference/{task}", f"picture/{task}/0", f"picture/{task}/1",
    ]  # fmt: skip
    buttons = re.findall(r'<button type="button"( disabled="")?>(\w+) ', page)
    assert buttons == [("", "Left"), ("", "Equal"), ("", "Right"), (' disabled=""', "Undo")]
    assert re.findall(r"CONSOLE[^\n]*", result.stderr) == []
