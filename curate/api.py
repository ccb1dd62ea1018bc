"""The public Python API of the data side: build a corpus, read it, explain it, correct it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stylear.curate.corpus import parquet
from stylear.curate.corpus.layout import KINDS, MANIFEST, RECIPE, VERDICTS, ShardKind, score_paths
from stylear.curate.corpus.object_store import corpus_path
from stylear.curate.corpus.pair_reader import PairReader
from stylear.curate.corpus.shards import iter_pairs
from stylear.curate.export.declared import Declared
from stylear.curate.export.exporter import ExportResult, export
from stylear.curate.recipe import Recipe, load_recipe
from stylear.curate.run import RunResult, finish_command, require_recipe_path, run
from stylear.embedded import find_manifest
from stylear.errors import CorpusError
from stylear.pair import Origin, Pair

if TYPE_CHECKING:
    import pyarrow as pa

    from stylear.curate.audit.result import AuditResult
    from stylear.curate.diff.compare import CorpusDiff
    from stylear.curate.forget.forget import ForgetResult


def build(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    workers: int = 0,
    allow_empty: bool = False,
) -> RunResult:
    """Build the corpus of a recipe, audit it and write its report, as `stylear curate run` does.

    `recipe` is a file, the name of an embedded recipe, or a Recipe; `overrides` maps dotted keys to
    values, as `--set` does; `workers` 0 is one for each core. If it is stopped, the same call continues.
    `allow_empty` accepts sources without pairs.

    Raises RecipeError, SourceError, SettingsChanged, CorpusLocked and AuditFailed, all of them StylearError.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(find_manifest(recipe), overrides)
    return run(recipe, corpus_path(out), workers=workers, allow_empty=allow_empty)


def open_corpus(path: str | Path) -> Corpus:
    """Open a corpus to read: a folder, or a URL such as s3://bucket/corpus.

    Raises CorpusError if there is none.
    """
    corpus = corpus_path(path)
    require_recipe_path(corpus)
    return Corpus(corpus)


def win_rates(path: str | Path) -> list[dict[str, Any]]:
    """The table of a user study that `stylear curate review --summary` prints for a corpus or a folder.

    One row for each model, the strongest first: model, comparisons, wins, ties, win_rate and strength. The
    last two have `value`, `low` and `high` of a 95% interval; strength is None if no chain of comparisons
    connects all models. Raises CorpusError for a damaged file of answers.
    """
    from stylear.curate.corpus.answers import read_answers
    from stylear.curate.review.summary import compare_models, model_rows

    return model_rows(compare_models(read_answers(Path(path))))


class Corpus:
    """A corpus. Data is read when it is asked for; only `forget` writes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe with all defaults."""
        return load_recipe(self.path / RECIPE)

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Files with hashes, counts, ratio and splits. Raises CorpusError for an unfinished corpus."""
        path = self.path / MANIFEST
        if not path.is_file():
            raise CorpusError(
                f"{self.path}: expected a finished corpus, found none with a {MANIFEST}",
                hint=finish_command(self.path),
            )
        manifest: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return manifest

    def pairs(self, kind: ShardKind | None = None) -> Iterator[Pair]:
        """Iterate over all raw pairs, then all stylized ones, with image bytes; dropped pairs have none.

        A pair's verdict is that of fetch or synthesize; `verdicts` has the filter's.
        """
        for name in KINDS if kind is None else (kind,):
            yield from iter_pairs(self.path / name)

    def verdicts(self) -> pa.Table:
        """One row per pair: key, kept, stage, reason, group, rank and scores."""
        return parquet.read_table(self.path / VERDICTS)

    def scores(self, scorer: str) -> pa.Table:
        """The columns of one scorer, raw pairs first: key and scores, null where there is no score.

        Raises CorpusError if the corpus has no such scorer.
        """
        import pyarrow as pa

        paths = score_paths(self.path, scorer)
        if not paths:
            raise CorpusError(
                f"{self.path}: no scores of {scorer!r}",
                hint=f"the recipe has {', '.join(spec.name for spec in self.recipe.score) or 'none'}",
            )
        tables = [parquet.read_table(path).replace_schema_metadata() for path in paths]
        return pa.concat_tables(tables)

    def image(self, key: str) -> bytes:
        """The encoded image of a pair; empty if it has none.

        Raises CorpusError for an unknown key.
        """
        return self._reader.pair(key).image

    def provenance(self, key: str) -> Origin:
        """The origin of a pair: source and hash, or reference, parent, prompt, seed and weights."""
        return self._reader.pair(key).origin

    def export(
        self, to: str, out: str | Path, declared: Declared | None = None, *, dry_run: bool = False
    ) -> ExportResult:
        """Write the finished corpus into the new folder `out`, as `stylear curate export` does.

        `to` is croissant, huggingface, parquet, folders, datacomp, sha256 or eu-summary; `declared` is what a
        corpus cannot know. Raises CorpusError for an unfinished or damaged corpus, UsageError if `out` has
        files.
        """
        return export(self.path, to, Path(out), declared, dry_run=dry_run)

    def audit(
        self, *, share: float = 1.0, seed: int = 0, decode: bool = False, workers: int = 0
    ) -> AuditResult:
        """Verify the finished corpus against its manifest, as `stylear curate audit` does.

        `share` of the images of each shard are read, drawn by `seed`; `decode` decodes them too. Call
        `require()` on the result to raise AuditFailed. Raises CorpusError for an unfinished corpus.
        """
        from stylear.curate.audit.auditor import audit
        from stylear.curate.audit.tars import Sampling

        return audit(self.path, Sampling(share, seed, decode), workers)

    def query(self, sql: str) -> list[dict[str, Any]]:
        """The rows of one SELECT over the tables of the corpus, as `stylear curate query` prints them.

        Raises UsageError for any other statement.
        """
        from stylear.curate.query import query

        return query(self.path, sql)

    def explain(self, pair: str | Path) -> list[dict[str, Any]]:
        """The history of the pairs that a key, a URL, a sha256 or an image file matches.

        Each is as in `stylear curate explain --json`: origin, scores, stages, outcome, children.
        Raises UsageError if nothing matches.
        """
        from stylear.curate.explain.find import find_pairs
        from stylear.curate.explain.history import explain

        return explain(self.path, find_pairs(self.path, str(pair)))

    def diff(self, other: Corpus | str | Path) -> CorpusDiff:
        """How another corpus differs from this one: recipe, counts, pairs, scores, styles.

        Raises CorpusError if either is damaged.
        """
        from stylear.curate.diff.compare import diff_corpora

        opened = other if isinstance(other, Corpus) else open_corpus(other)
        return diff_corpora(self.path, opened.path)

    def forget(
        self,
        *,
        keys: Iterable[str] = (),
        sources: Iterable[str] = (),
        sha256: Iterable[str] = (),
        domains: Iterable[str] = (),
        pictures: Iterable[str | Path] = (),
        dry_run: bool = False,
    ) -> ForgetResult:
        """Remove pairs permanently and keep them from coming back, as `stylear curate forget` does.

        `sources` are URLs or other sources, `pictures` image files whose near duplicates are forgotten.
        Raises UsageError for an empty request or an unknown key, CorpusLocked while another process writes.
        """
        from stylear.curate.forget.forget import forget_pairs
        from stylear.curate.forget.request import Request

        request = Request(
            tuple(keys), tuple(sources), tuple(sha256), tuple(domains), tuple(map(Path, pictures))
        )
        result = forget_pairs(self.path, request, dry_run=dry_run)
        for name in ("recipe", "manifest", "_reader"):  # read again: files have changed
            self.__dict__.pop(name, None)
        return result

    @cached_property
    def _reader(self) -> PairReader:
        return PairReader(self.path)
