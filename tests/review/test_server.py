"""The server answers its own page and nobody else; nothing that it shows can run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.review_client import origin_of, post, request, state
from builders.systems_folder import write_systems

from stylear.curate.corpus.answers import read_answers
from stylear.curate.corpus.layout import ANSWERS
from stylear.curate.review.folder_tasks import FolderMaterial
from stylear.curate.review.server import serve_review
from stylear.curate.review.session import Session
from stylear.curate.review.tasks import order_tasks
from stylear.errors import UsageError

HOSTILE = "</script><img src=x onerror=alert(1)> \u2028 a cat"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = write_systems(tmp_path / "drawn", prompts=["one", "two", "three"])
    rows = [f'{s}/{n}.png,{s},"{HOSTILE} {n}",references/{n}.png'
            for n in ("one", "two", "three") for s in ("ours", "theirs")]  # fmt: skip
    (folder / "pictures.csv").write_text(
        "\n".join(["file,system,prompt,reference", *rows]), "utf-8"
    )
    return folder


def session_of(folder: Path, reviewer: str = "ann", seed: int = 0) -> Session:
    tasks = FolderMaterial(folder).tasks("prefer")
    return Session(folder, order_tasks(tasks, seed, reviewer, None), reviewer)


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    with serve_review(session_of(folder), FolderMaterial(folder)) as url:
        yield url


def answer_body(url: str) -> dict[str, str]:
    return {"task": state(url)["task"]["id"], "answer": "left"}


def test_a_wrong_token_finds_nothing(url: str) -> None:
    wrong = origin_of(url) + "/" + "x" * 32 + "/"
    for path in ("", "state", "page.js", "page.css"):
        assert request(url + path)[0] == 200
        assert request(wrong + path)[0] == 404
    assert request(origin_of(url) + "/")[0] == 404
    assert request(origin_of(url) + "/state")[0] == 404
    assert (
        request(wrong + "undo", {}, Origin=origin_of(url), Content_Type="application/json")[0]
        == 404
    )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "evil.example:80"])
def test_another_host_header_is_refused(url: str, host: str) -> None:
    assert request(url + "state", Host=host)[0] == 421


@pytest.mark.parametrize("origin", ["", "null", "http://evil.example", "http://127.0.0.1"])
def test_a_post_of_another_origin_records_nothing(url: str, folder: Path, origin: str) -> None:
    body = answer_body(url)
    assert request(url + "answer", body, Origin=origin, Content_Type="application/json")[0] == 403
    assert not (folder / ANSWERS).exists()


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"{}", 415),
        ("application/x-www-form-urlencoded", b"task=1", 415),
        ("application/json", b"not json", 400),
        ("application/json", b"[]", 400),
        ("application/json", b"[" * 4000, 400),
        ("application/json", b"{}" + b" " * 5000, 400),
        ("application/json", b'{"task": "unknown", "answer": "left"}', 400),
        ("application/json", b'{"task": {"a": 1}, "answer": 3}', 400),
    ],
)
def test_a_post_that_is_no_answer_records_nothing(
    url: str, folder: Path, kind: str, body: bytes, status: int
) -> None:
    assert request(url + "answer", body, Origin=origin_of(url), Content_Type=kind)[0] == status
    assert not (folder / ANSWERS).exists()


def test_every_reply_has_a_strict_policy(url: str) -> None:
    task = state(url)["task"]["id"]
    for path in ("", "page.js", "page.css", "state", "missing", f"picture/{task}/0"):
        headers = request(url + path)[1]
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


def test_the_page_has_no_inline_script_style_or_handler(url: str) -> None:
    page = request(url)[2].decode()
    script = request(url + "page.js")[2].decode()
    assert "<script src=" in page
    assert page.count("<script") == 1
    assert "style=" not in page
    assert " on" not in page.replace(" one", "")
    assert "innerHTML" not in script
    assert "insertAdjacentHTML" not in script


def test_a_hostile_caption_is_data_only(url: str) -> None:
    status, headers, data = request(url + "state")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert "\u2028" not in data.decode()
    assert state(url)["task"]["prompt"].startswith(HOSTILE)
    assert b"onerror" not in request(url)[2]


def test_the_state_names_no_system_and_no_file(url: str) -> None:
    text = request(url + "state")[2].decode()
    assert "ours" not in text
    assert "theirs" not in text
    assert ".png" not in text
    assert set(state(url)["task"]) == {"id", "kind", "prompt", "has_reference"}


def test_pictures_are_those_of_the_task(url: str, folder: Path) -> None:
    task = state(url)["task"]
    name = task["prompt"].rsplit(" ", 1)[1]
    sides = {request(f"{url}picture/{task['id']}/{n}")[2] for n in (0, 1)}
    assert sides == {(folder / s / f"{name}.png").read_bytes() for s in ("ours", "theirs")}
    status, headers, data = request(f"{url}reference/{task['id']}")
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert data == (folder / "references" / f"{name}.png").read_bytes()
    for path in (
        f"picture/{task['id']}/2",
        f"picture/{task['id']}/",
        "picture/x/0",
        "picture/../0",
    ):
        assert request(url + path)[0] == 404


def test_a_file_that_is_no_picture_is_not_sent(url: str, folder: Path) -> None:
    task = state(url)["task"]
    name = task["prompt"].rsplit(" ", 1)[1]
    (folder / "ours" / f"{name}.png").write_text("<svg onload='alert(1)'/>")
    (folder / "theirs" / f"{name}.png").write_text("<html>")
    assert [request(f"{url}picture/{task['id']}/{n}")[0] for n in (0, 1)] == [404, 404]


def test_answers_undo_and_progress(url: str, folder: Path) -> None:
    first = state(url)
    assert (first["done"], first["total"], first["reviewer"]) == (0, 3, "ann")
    status, second = post(url, "answer", {"task": first["task"]["id"], "answer": "left"})
    assert (status, second["done"]) == (200, 1)
    assert second["task"]["id"] != first["task"]["id"]
    status, again = post(url, "answer", {"task": first["task"]["id"], "answer": "right"})
    assert (status, again) == (409, second)
    [saved] = read_answers(folder)
    assert (saved.task, saved.answer) == (first["task"]["id"], "left")
    status, back = post(url, "undo", {})
    assert (status, back) == (200, first)
    assert read_answers(folder) == []
    assert post(url, "undo", {}) == (200, first)
    for _ in range(3):
        post(url, "answer", {**answer_body(url), "answer": "tie"})
    assert state(url)["task"] is None
    assert len((folder / ANSWERS).read_text("utf-8").splitlines()) == 5


def test_the_recorded_winner_is_the_picture_that_was_shown_on_that_side(folder: Path) -> None:
    session = session_of(folder)
    task = next(iter(session.tasks.values()))
    session.answer(task.id, "right")
    [saved] = read_answers(folder)
    assert saved.sides == task.sides
    assert saved.answer == "right"


def test_a_new_session_continues_and_a_second_reviewer_starts_at_0(folder: Path) -> None:
    first = session_of(folder)
    tasks = list(first.tasks)
    first.answer(tasks[0], "left")
    again, other = session_of(folder), session_of(folder, "bo")
    assert (again.done, other.done) == (1, 0)
    assert again.state()["task"]["id"] == tasks[1]
    assert again.undo()
    assert read_answers(folder) == []
    assert not other.undo()


def test_order_and_sides_depend_on_seed_and_reviewer_alone(tmp_path: Path) -> None:
    folder = write_systems(tmp_path, prompts=[f"prompt {n}" for n in range(40)])
    tasks = FolderMaterial(folder).tasks("prefer")
    ann = order_tasks(tasks, 0, "ann", None)
    assert order_tasks(tasks[::-1], 0, "ann", None) == ann
    assert order_tasks(tasks, 0, "bo", None) != ann
    assert order_tasks(tasks, 1, "ann", None) != ann
    left = sum(task.sides[0].model == "ours" for task in ann)
    assert 8 < left < 32
    of_ann, of_bo = ({t.id for t in order_tasks(tasks, 0, who, 10)} for who in ("ann", "bo"))
    assert (len(of_ann), of_ann) == (10, of_bo)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 65, "\x1b[0m"])
def test_a_reviewer_needs_a_printable_name(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--reviewer: expected a name"):
        session_of(folder, name)


def test_a_taken_port_is_an_error(folder: Path, url: str) -> None:
    port = int(origin_of(url).rsplit(":", 1)[1])
    with (
        pytest.raises(UsageError, match=f"--port {port}: cannot be used"),
        serve_review(session_of(folder), FolderMaterial(folder), port),
    ):
        pass
