"""Recognise checkpoints trained with QuickGELU: with plain GELU they silently give wrong scores.

OpenAI's, DFN's and MetaCLIP's files have the same keys and shapes as those trained with GELU. open_clip lists
which of its published checkpoints need it, by URL; OpenAI's URLs contain the files' hashes.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from stylear.errors import WeightsError
from stylear.weights.files import hash_path

SHA256 = re.compile(r"/([0-9a-f]{64})/")


def refuse_wrong_activation(name: str, arch: str, file: Path) -> None:
    """Raise WeightsError for a QuickGELU checkpoint under an architecture with GELU.

    It is recognised by its name, by OpenAI's archive format, or by its hash.
    """
    import open_clip

    config = open_clip.get_model_config(arch) or {}
    if config.get("quick_gelu"):
        return
    right = f"{arch}-quickgelu"
    urls = list(quick_gelu_urls(arch))
    if not urls or open_clip.get_model_config(right) is None:
        return
    hashes = {match[1] for url in urls if (match := SHA256.search(url))}
    known = (
        file.name in {url.rpartition("/")[2] for url in urls}
        or is_torchscript(file)
        or (bool(hashes) and hash_path(file) in hashes)
    )
    if known:
        raise WeightsError(
            f"{name}: this checkpoint was trained with QuickGELU, and {arch} has GELU: its scores would"
            " be wrong",
            hint=f"name it {right}/{file}",
        )


def quick_gelu_urls(arch: str) -> Iterator[str]:
    """The URLs of an architecture's published checkpoints that need QuickGELU."""
    import open_clip

    for tag in open_clip.list_pretrained_tags_by_model(arch):
        published = open_clip.get_pretrained_cfg(arch, tag)
        if published.get("quick_gelu") and published.get("url"):
            yield str(published["url"])


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive, as OpenAI publishes its models."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any("/code/" in name for name in archive.namelist())
