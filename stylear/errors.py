"""The error tree. Every expected failure is one of these; anything else is a bug and crashes.

    StylearError            exit 1   something failed; the message names it and the fix
    ├── SeveralErrors                several of these at once, found before a run begins
    ├── UsageError          exit 2   the command line or the recipe asks for something impossible
    │   └── RecipeError              a key of a recipe: unknown, missing, wrong type, out of range
    ├── SourceError                  an input file, folder, list, URL or tar that cannot be read
    │   └── SourceEmpty              an input that can be read and holds nothing
    ├── PluginError                  an installed plug-in that cannot be imported or has the wrong interface
    ├── WeightsError                 a model or checkpoint that is missing, corrupt or of another model
    ├── CorpusError                  a corpus that is not what it should be
    │   ├── SettingsChanged          the existing output was made with other settings
    │   ├── CorpusLocked             another live process is writing this corpus
    │   └── AuditFailed              bytes, counts or lineage differ from the manifest
    ├── TrainingError                training cannot continue: a loss or gradients that are not finite
    └── StorageError                 the disk is full or a path cannot be written
        └── StoreFailed              an object store that does not answer, or refuses

A message names the file, key or URL at fault, what was expected and what was found; `hint` says what to do.
"""

from __future__ import annotations

from collections.abc import Sequence


class StylearError(Exception):
    """An expected failure: one line for the user, an optional hint, an exit code."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SeveralErrors(StylearError):
    """Several things that were checked together failed; each keeps its own message and hint."""

    def __init__(self, errors: Sequence[StylearError]) -> None:
        super().__init__(
            f"{len(errors)} problems: " + "; ".join(error.message for error in errors),
            hint="; ".join(dict.fromkeys(error.hint for error in errors if error.hint)) or None,
        )
        self.errors = tuple(errors)
        self.exit_code = max(error.exit_code for error in errors)


class UsageError(StylearError):
    """The request itself cannot be met."""

    exit_code = 2


class RecipeError(UsageError):
    """A recipe or settings file is wrong; the message names the key."""


class SourceError(StylearError):
    """An input cannot be read."""


class SourceEmpty(SourceError):
    """An input holds no rows, images or samples."""


class PluginError(StylearError):
    """A plug-in of another distribution cannot be used; the message names the distribution."""


class WeightsError(StylearError):
    """Weights are missing, corrupt, or belong to another model."""


class CorpusError(StylearError):
    """A corpus is not in the state that the command needs."""


class SettingsChanged(CorpusError):
    """Finished output was made by other settings."""


class CorpusLocked(CorpusError):
    """Another process holds the corpus."""


class AuditFailed(CorpusError):
    """The corpus differs from its manifest."""


class TrainingError(StylearError):
    """Training cannot continue; the message names the step and the pairs."""


class StorageError(StylearError):
    """Writing failed for a reason outside the program."""


class StoreFailed(StorageError, OSError):
    """An object store failed or refused a request; also an OSError, as code that reads files expects."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"{url}: the object store failed: {reason}",
            hint="check the URL, the credentials and the network, then run the same command again",
        )
        self.url, self.strerror = url, reason

    def __reduce__(self) -> tuple[type[StoreFailed], tuple[str, str]]:
        return StoreFailed, (self.url, str(self.strerror))
