"""The formats of an export by their names on the command line."""

from __future__ import annotations

from importlib import import_module

from stylear.curate.export.base import Export
from stylear.curate.export.corpus import ExportedCorpus
from stylear.curate.export.declared import Declared
from stylear.errors import UsageError

FORMATS = {  # name: (module and class, description)
    "croissant": ("croissant:CroissantExport", "shards described in Croissant 1.1 JSON-LD"),
    "huggingface": ("huggingface:HuggingFaceExport", "WebDataset shards with a dataset card"),
    "parquet": ("parquet:ParquetExport", "Parquet with the pictures inside"),
    "folders": ("folders:FoldersExport", "pictures with .txt captions, kohya's layout"),
    "datacomp": ("datacomp:DatacompExport", "DataComp uids as .npy"),
    "sha256": ("sha256:Sha256Export", "hashes for sha256sum"),
    "eu-summary": ("eu_summary:EuSummaryExport", "the EU's public summary of training content"),
}


def open_export(name: str, corpus: ExportedCorpus, declared: Declared) -> Export:
    """The export of a format; its module is imported here. Raises UsageError for an unknown name."""
    if name not in FORMATS:
        raise UsageError(
            f"--to: expected one of {', '.join(FORMATS)}, found {name!r}",
            hint="docs/export.md describes each format",
        )
    module, kind = FORMATS[name][0].split(":")
    opener = getattr(import_module(f"stylear.curate.export.{module}"), kind)
    opened: Export = opener(corpus, declared)
    return opened
