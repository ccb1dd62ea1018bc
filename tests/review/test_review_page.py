"""The page in a headless Chromium: it draws its task, obeys keys, and a hostile caption stays text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.browser import Browser, find_browser
from builders.systems_folder import write_systems

from stylear.curate.corpus.answers import read_answers
from stylear.curate.review.folder_tasks import FolderMaterial
from stylear.curate.review.server import serve_review
from stylear.curate.review.session import Session
from stylear.curate.review.tasks import order_tasks

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
PROMPTS = ("one", "two")
COUNT = "document.getElementById('count').textContent"

pytestmark = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium is installed (apt-get install chromium)"
)


@pytest.fixture
def session(tmp_path: Path) -> Session:
    folder = write_systems(tmp_path / "drawn", prompts=list(PROMPTS))
    quoted = HOSTILE.replace('"', '""')
    rows = [
        f'{system}/{prompt}.png,{system},"{quoted} {prompt}",references/{prompt}.png'
        for prompt in PROMPTS
        for system in ("ours", "theirs")
    ]
    (folder / "pictures.csv").write_text("\n".join(["file,system,prompt,reference", *rows]))
    tasks = FolderMaterial(folder).tasks("prefer")
    return Session(folder, order_tasks(tasks, 0, "ann", None), "ann")


@pytest.fixture
def page(session: Session, tmp_path: Path) -> Iterator[Browser]:
    """The open page. Whatever a test does, the console stays clean and no other host is asked."""
    (tmp_path / "profile").mkdir()
    with (
        serve_review(session, FolderMaterial(session.folder)) as url,
        Browser(str(find_browser()), tmp_path / "profile") as browser,
    ):
        browser.open(url)
        browser.wait_for(f"{COUNT} === '0 of 2 answered'")
        yield browser
        assert browser.problems == []
        assert [u for u in browser.requested if not u.startswith((url, "about:blank"))] == []


def test_a_task_is_drawn_and_nothing_of_its_caption_runs(page: Browser, session: Session) -> None:
    task = next(iter(session.tasks))
    prompt = page.evaluate("document.getElementById('prompt').textContent")
    assert prompt.startswith(HOSTILE)
    assert page.evaluate("document.title") == "Review"
    shown = "[...document.querySelectorAll('figure:not([hidden]) img')]"
    page.wait_for(f"{shown}.every((image) => image.naturalWidth > 0)")
    assert page.evaluate(f"{shown}.map((image) => image.getAttribute('src'))") == [
        f"reference/{task}", f"picture/{task}/0", f"picture/{task}/1",
    ]  # fmt: skip
    buttons = "[...document.querySelectorAll('#buttons button')]"
    assert page.evaluate(f"{buttons}.map((b) => [b.firstChild.data.trim(), b.disabled])") == [
        ["Left", False], ["Equal", False], ["Right", False], ["Undo", True],
    ]  # fmt: skip


def test_keys_answer_and_undo(page: Browser, session: Session) -> None:
    first, second = session.tasks
    page.press("ArrowLeft")
    page.wait_for(f"{COUNT} === '1 of 2 answered'")
    page.press("u", "u")
    page.wait_for(f"{COUNT} === '0 of 2 answered'")
    page.press("ArrowRight")
    page.wait_for(f"{COUNT} === '1 of 2 answered'")
    page.press("0", "0")
    page.wait_for("document.getElementById('question').textContent.startsWith('All answered')")
    answers = [(answer.task, answer.answer) for answer in read_answers(session.folder)]
    assert answers == [(first, "right"), (second, "tie")]
