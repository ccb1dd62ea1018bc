"""Synthesisers of plug-ins: their base class, and the checks of what they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from stylear.curate.entry_points import SYNTHESIZERS, Plugin, find_plugin
from stylear.curate.recipe.synthesizers import BackendSettings
from stylear.curate.references import StyleReference
from stylear.curate.synthesize.job import Encoding, Job
from stylear.errors import RecipeError
from stylear.pair import Pair


class SynthesizerPlugin(ABC):
    """The base class of a plug-in's synthesiser; each worker opens one.

    Raise an error of `stylear.errors` in `__init__` if the models cannot be loaded.
    """

    Settings: ClassVar[type[BackendSettings]] = BackendSettings
    needs_content: ClassVar[bool] = False  # stylises the parent's image, not a prompt
    uses_gpu: ClassVar[bool] = False  # runs on a GPU if there is one: one worker for each

    def __init__(
        self, settings: Any, references: Mapping[str, StyleReference], encoding: Encoding
    ) -> None:
        self.settings, self.references, self.encoding = settings, references, encoding

    @abstractmethod
    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair for each job, in order, made by `make_stylized_pair`.

        The bytes are the parent's image if `needs_content`, else b"". A job's pair may depend on the job, its
        bytes, the settings and the references alone, not on the other jobs; take randomness from `job.seed`.
        """


def open_plugin(
    backend: str,
    settings: BackendSettings,
    references: Mapping[str, StyleReference],
    encoding: Encoding,
) -> CheckedPlugin:
    """Open the synthesiser of a plug-in. Raises RecipeError, or PluginError for a wrong interface."""
    plugin = find_plugin(SYNTHESIZERS, backend)
    if plugin is None:
        raise RecipeError(f"synthesize.backend: no plug-in provides {backend!r}")
    if not issubclass(plugin.target, SynthesizerPlugin):
        raise plugin.error(
            f"expected a subclass of stylear.plugins.SynthesizerPlugin, found {plugin.target!r}"
        )
    return CheckedPlugin(plugin, plugin.target(settings, references, encoding))


class CheckedPlugin:
    """A plug-in's synthesiser whose pairs are checked, and record the plug-in and its version."""

    def __init__(self, plugin: Plugin, synthesizer: SynthesizerPlugin) -> None:
        self.plugin, self.synthesizer = plugin, synthesizer

    def __call__(self, jobs: Sequence[tuple[Job, bytes]]) -> list[Pair]:
        """One pair for each job, in order. Raises PluginError for anything else."""
        pairs = self.synthesizer(jobs)
        expected = [job.key for job, _ in jobs]
        if (
            not isinstance(pairs, list)
            or [getattr(result, "key", None) for result in pairs] != expected
        ):
            count = len(pairs) if isinstance(pairs, list) else type(pairs).__name__
            raise self.plugin.error(
                f"expected a list of one pair for each of {len(expected)} jobs, in order, found {count}"
            )
        return [self._record_plugin(pair) for pair in pairs]

    def _record_plugin(self, pair: Pair) -> Pair:
        details = {**pair.origin.details, "plugin": self.plugin.origin}
        return replace(pair, origin=replace(pair.origin, details=details))
