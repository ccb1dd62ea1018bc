"""Croissant 1.1: the corpus's own shards, a table of records, and `croissant.json` that describes them.

Shards are copied byte for byte, so their hashes are those of the manifest. The record set `pairs` has the
provenance of every pair, `images` the pictures by key. The context is the one that `mlcroissant` expects.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stylear.curate.corpus.storage import FileInfo, write_text
from stylear.curate.export import responsible_ai
from stylear.curate.export.base import Export
from stylear.curate.export.corpus import canonical_text
from stylear.curate.export.parquet import ROW_BYTES
from stylear.curate.export.record import FIELDS, arrow_schema, flatten_pair
from stylear.curate.export.row_groups import Row, write_row_groups

FILE, RECORDS = "croissant.json", "records.parquet"
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
MIME = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
TYPES = {"string": "sc:Text", "int64": "sc:Integer", "int32": "sc:Integer"}
EQUIVALENT = {"caption": "sc:caption", "source": "prov:hadPrimarySource", "licence": "sc:license"}
FILE_BYTES = 400  # of a shard's description, approximately
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
Node = dict[str, Any]


class CroissantExport(Export):
    """Shards, records and their description."""

    def write(self, folder: Path) -> None:
        shards: list[Node] = []
        write_row_groups(folder / RECORDS, arrow_schema(), self.copy_shards(folder, shards))
        records = file_object(RECORDS, "application/x-parquet", FileInfo.of(folder / RECORDS))
        write_text(folder / FILE, canonical_text(self.describe(shards, records)))
        missing = ", ".join(self.declared.unset_options())
        if missing:
            self.warnings.append(
                f"Croissant asks for what no corpus knows; state it with {missing}"
            )

    def estimate_bytes(self) -> int:
        tars = sum(len(self.corpus.shards(split)) for split in self.corpus.split_sizes)
        return self.tar_bytes() + ROW_BYTES * self.corpus.num_pairs + FILE_BYTES * tars

    def copy_shards(self, folder: Path, shards: list[Node]) -> Iterator[tuple[Row, int]]:
        """Copy every shard, describe it in `shards`, and give the records of its pairs."""
        for split in self.corpus.split_sizes:
            for tar in self.corpus.shards(split):
                name = f"{split}/{tar.name}"
                info = self.corpus.copy_file(tar, folder / name)
                shards.append(file_object(name, "application/x-tar", info))
                for pair in self.track(self.corpus.shard_pairs(tar)):
                    yield flatten_pair(pair, split), 0

    def describe(self, shards: list[Node], records: Node) -> Node:
        """The description of the data set."""
        facts, declared = self.facts, self.declared
        stated = {
            "license": declared.licence,
            "url": declared.url,
            "creator": None if declared.creator is None else creator_node(declared.creator),
            "datePublished": declared.published,
        }
        text = (
            f"{facts.num_raw} raw pairs of caption and picture and {facts.num_stylized} pairs synthesised in"
            f" {len(facts.styles)} styles, for training text-to-image models in given styles."
        )
        return {
            "@context": CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": CONFORMS_TO,
            "name": self.corpus.name,
            "description": text,
            **{name: value for name, value in stated.items() if value is not None},
            "keywords": ["text-to-image", "style", *(["synthetic"] if facts.num_stylized else [])],
            "isLiveDataset": False,
            **responsible_ai.describe(self.corpus, facts),
            "distribution": [*shards, records, self.picture_set(shards)],
            "recordSet": [pairs_set(), images_set()],
        }

    def picture_set(self, shards: list[Node]) -> Node:
        """The pictures inside the shards."""
        formats = sorted(self.facts.formats)
        return {
            "@type": "cr:FileSet",
            "@id": "pictures",
            "name": "pictures",
            "description": "The pictures, each called KEY.ENDING.",
            "containedIn": [{"@id": shard["@id"]} for shard in shards],
            "encodingFormat": [MIME[ending] for ending in formats],
            "includes": [f"*.{ending}" for ending in formats],
        }


def file_object(name: str, encoding: str, info: FileInfo) -> Node:
    """A file of the export with its hash."""
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{info.bytes} B",
        "encodingFormat": encoding,
        "sha256": info.sha256,
    }


def creator_node(name: str) -> Node:
    """The publisher of the data set; whether a person or an organisation is unknown."""
    return {"@type": "sc:Organization", "name": name}


def pairs_set() -> Node:
    """The record set with the provenance of every pair."""
    return {
        "@type": "cr:RecordSet",
        "@id": "pairs",
        "name": "pairs",
        "description": "Every pair with where it comes from and how it was made.",
        "key": {"@id": "pairs/key"},
        "field": [record_field(name) for name in FIELDS],
    }


def record_field(name: str) -> Node:
    """A column of the records."""
    kind, text = FIELDS[name]
    node = {
        "@type": "cr:Field",
        "@id": f"pairs/{name}",
        "name": name,
        "description": text,
        "dataType": TYPES[kind],
        "source": {"fileObject": {"@id": RECORDS}, "extract": {"column": name}},
    }
    return node | ({"equivalentProperty": EQUIVALENT[name]} if name in EQUIVALENT else {})


def images_set() -> Node:
    """The record set with the pictures by key."""
    pictures = {"@id": "pictures"}
    return {
        "@type": "cr:RecordSet",
        "@id": "images",
        "name": "images",
        "description": "The picture of every pair.",
        "key": {"@id": "images/key"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": "images/key",
                "name": "key",
                "description": "The key of the pair.",
                "dataType": "sc:Text",
                "source": {
                    "fileSet": pictures,
                    "extract": {"fileProperty": "filename"},
                    "transform": {"regex": r"^([^.]+)\."},
                },
            },
            {
                "@type": "cr:Field",
                "@id": "images/image",
                "name": "image",
                "description": "The picture.",
                "dataType": "sc:ImageObject",
                "source": {"fileSet": pictures, "extract": {"fileProperty": "content"}},
            },
        ],
    }
