"""The synthesisers, one file each.

To add a backend that draws prompts, write its class here and register it in `PROMPT_BACKENDS`
(`synthesize/__init__.py`). To add one that stylises content images, write a function `stylize` here, call it
in `TextureSynthesizer._stylize` (`synthesize/texture/synthesizer.py`), give it a version in `VERSIONS`
(`synthesize/job.py`) and list it in `NEEDS_CONTENT` (`recipe/synthesizers/__init__.py`). Register the
settings of either kind in `BACKENDS` (`recipe/synthesizers/__init__.py`).
"""
