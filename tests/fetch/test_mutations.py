"""Claims about damaged input: mutated images and tars are stored or refused, and lose nothing."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from builders.hostile_inputs import picture, plain, recipe, write_tar

from stylear.curate.fetch import read_raw
from stylear.curate.fetch.ingest import ImageRejected, convert_image, ingest
from stylear.curate.recipe import ImageSettings
from stylear.errors import SourceError


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with up to eight bytes changed, a piece cut out, doubled, or overwritten."""
    mutant = bytearray(data)
    match rng.randrange(5):
        case 0:
            del mutant[rng.randrange(len(mutant)) :]
        case 1:
            start = rng.randrange(len(mutant))
            del mutant[start : start + rng.randrange(1, 40)]
        case 2:
            start = rng.randrange(len(mutant))
            mutant[start:start] = mutant[start : start + rng.randrange(1, 40)]
        case 3:
            start = rng.randrange(len(mutant))
            piece = mutant[start : start + rng.randrange(1, 24)]
            mutant[start : start + len(piece)] = rng.choice((b"\0", b"\xff")) * len(piece)
        case _:
            for _ in range(rng.randrange(1, 9)):
                mutant[rng.randrange(len(mutant))] = rng.randrange(256)
    return bytes(mutant)


REASONS = {
    "empty",
    "not-an-image",
    "too-many-pixels",
    "too-small",
    "corrupt-image",
    "unsupported-pixels",
}


def test_eight_thousand_mutated_images_are_stored_or_refused() -> None:
    rng = random.Random(8)
    settings = ImageSettings(size=16, min_side=1)
    formats = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
    bases = [picture(n, format) for n, format in enumerate(formats)]
    outcomes: Counter[str] = Counter()
    for n in range(8000):
        try:
            stored = convert_image(mutated(bases[n % len(bases)], rng), settings)
        except ImageRejected as rejection:
            outcomes[rejection.reason] += 1
        else:
            outcomes["stored"] += 1
            assert stored.data.startswith(b"\x89PNG")
    assert outcomes.total() == 8000
    assert set(outcomes) <= REASONS | {"stored"}
    assert outcomes["stored"] > 1000
    assert outcomes["corrupt-image"] > 500


def test_two_thousand_mutated_tars_lose_nothing(tmp_path: Path) -> None:
    """Each is an error that names the tar, or a pair for every key in it, kept or dropped with a reason."""
    rng = random.Random(2)
    path = tmp_path / "x.tar"
    members = [
        member
        for n in range(3)
        for member in (
            plain(f"{n}.png", picture(n, size=8)),
            plain(f"{n}.txt", b"a thing"),
            plain(f"{n}.json", b'{"licence": "cc0"}'),
        )
    ]
    write_tar(path, members)
    whole = path.read_bytes()[: 512 * 20]  # without most of the padding, where nothing would happen
    plan = recipe(tmp_path, {"type": "shards", "path": "x.tar"})
    outcomes: Counter[str] = Counter()
    for _ in range(2000):
        path.write_bytes(mutated(whole, rng))
        try:
            pairs = list(read_raw(plan, tmp_path / "work"))
        except SourceError as error:
            outcomes["refused" if "x.tar" in str(error) else "unnamed"] += 1
            continue
        done = [ingest(pair, plan.image) for pair in pairs]
        assert [pair.key for pair in done] == [pair.key for pair in pairs]
        assert len({pair.key for pair in done}) == len(done)
        assert all(pair.kept == bool(pair.image) for pair in done)
        assert all(pair.kept or pair.verdict.reason for pair in done)
        outcomes["kept" if all(pair.kept for pair in done) else "dropped"] += 1
    assert outcomes.total() == 2000
    assert set(outcomes) == {"refused", "kept", "dropped"}
    assert min(outcomes.values()) > 30
