"""Files: each has the bytes that the manifest records, and the corpus has no other file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stylear.console import ByteBar
from stylear.curate.audit.difference import Difference
from stylear.curate.audit.manifest import corpus_files
from stylear.curate.corpus.layout import MANIFEST
from stylear.curate.corpus.storage import FileInfo
from stylear.errors import CorpusError

INDEXED = ("train/", "val/", "preferences/")  # folders with a wids index, which has MD5


def read_manifest(corpus: Path) -> tuple[dict[str, Any], str]:
    """The manifest and its own hash. Raises CorpusError if there is none or it is damaged."""
    path = corpus / MANIFEST
    try:
        data = path.read_bytes()
        manifest = json.loads(data)
        for name, info in manifest["files"].items():
            if not (isinstance(info["bytes"], int) and isinstance(info["sha256"], str)):
                raise TypeError(f"{name}: {info}")
    except FileNotFoundError:
        raise CorpusError(
            f"{corpus}: expected a finished corpus, found no {MANIFEST}",
            hint="finish it with `stylear curate run RECIPE --out CORPUS`",
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorpusError(
            f"{path}: expected a manifest, found: {error!r}",
            hint="rewrite it with `stylear curate run RECIPE --out CORPUS`",
        ) from error
    return manifest, hashlib.sha256(data).hexdigest()


def check_files(
    corpus: Path, files: Mapping[str, Mapping[str, Any]], infos: dict[str, FileInfo]
) -> Iterator[Difference]:
    """Files that are missing, unknown, or different from the manifest.

    Puts the hashes that it takes into `infos`.
    """
    present = set(corpus_files(corpus))
    for name in sorted(set(files) - present):
        yield Difference("missing", name, "a file", "none")
    for name, current in hash_files(corpus, {n: i for n, i in files.items() if n in present}):
        infos[name], info = current, files[name]
        if current.bytes != info["bytes"]:
            yield Difference("changed", name, f"{info['bytes']} bytes", f"{current.bytes} bytes")
        elif current.sha256 != info["sha256"]:
            yield Difference(
                "changed", name, f"sha256 {info['sha256'][:12]}", f"sha256 {current.sha256[:12]}"
            )
    for name in sorted(present - set(files)):
        yield Difference("extra", name, "no such file", f"a file that {MANIFEST} does not list")


def hash_files(
    corpus: Path, files: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, FileInfo]]:
    """The current sizes and hashes of files by name; a bar shows the progress."""
    with ByteBar("audit", sum(int(info["bytes"]) for info in files.values())) as bar:
        for name, info in sorted(files.items()):
            indexed = name.endswith(".tar") and name.startswith(INDEXED)
            yield name, FileInfo.of(corpus / name, md5=indexed)
            bar.advance_bytes(int(info["bytes"]))
