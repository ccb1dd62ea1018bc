"""robots.txt as RFC 9309 reads it: groups by robot, the longest match wins, `*` and `$` in paths."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

AGENT = "stylear"
MAX_BYTES = 512_000  # what a robot must at least read (RFC 9309, 2.5)
MAX_HOSTS = 20_000  # kept in the cache


@dataclass(frozen=True, slots=True)
class Rules:
    """(allowed, path pattern) of the group that holds for us."""

    lines: tuple[tuple[bool, str], ...] = ()

    def allow(self, path: str) -> bool:
        """Whether we may ask for a path (with its query). The longest pattern decides; allow at a tie."""
        found = [(len(rule), allowed) for allowed, rule in self.lines if _matches(rule, path)]
        return max(found, default=(0, True))[1]


EVERYTHING, NOTHING = Rules(), Rules(((False, "/"),))


def parse(text: str, agent: str = AGENT) -> Rules:
    """The rules for `agent`: those of the groups that name it, else those for everyone."""
    named: list[tuple[bool, str]] = []
    everyone: list[tuple[bool, str]] = []
    agents: list[str] = []
    in_rules, is_named = False, False
    for line in text.replace("\0", "").splitlines():
        key, _, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if key == "user-agent":
            agents = [value.lower()] if in_rules else [*agents, value.lower()]
            in_rules = False
            is_named = is_named or agent in agents
        elif key in ("allow", "disallow"):
            in_rules = True
            for group, member in ((named, agent), (everyone, "*")):
                if member in agents and value:
                    group.append((key == "allow", value))
    return Rules(tuple(named if is_named else everyone))


def _matches(rule: str, path: str) -> bool:
    """Whether a path starts with what the rule says; percent-escapes are compared unescaped."""
    whole = rule.endswith("$")
    first, *rest = (unquote(part) for part in rule.removesuffix("$").split("*"))
    path = unquote(path)
    if not path.startswith(first):
        return False
    last = rest.pop() if whole and rest else None
    at = len(first)
    for part in rest:  # each as early as it can be: linear, whatever the rule
        at = path.find(part, at)
        if at < 0:
            return False
        at += len(part)
    if last is not None:
        return len(path) - at >= len(last) and path.endswith(last)
    return at == len(path) if whole else True


class RobotsCache:
    """The rules of each site, asked for once. `read` gives the text; None for a site without rules."""

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._rules: dict[str, Rules] = {}
        self._asking: dict[str, threading.Lock] = {}

    def allow(self, url: str) -> bool:
        """Whether we may ask for a URL; no when the site's rules cannot be read (RFC 9309, 2.3.1.4)."""
        parts = urlsplit(url)
        site = f"{parts.scheme}://{parts.netloc}"
        return self._of(site).allow(
            (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        )

    def _of(self, site: str) -> Rules:
        with self._lock:
            if site in self._rules:
                return self._rules[site]
            asking = self._asking.setdefault(site, threading.Lock())
        with asking:  # the other threads of this site wait for the first
            with self._lock:
                if site in self._rules:
                    return self._rules[site]
            try:
                text = self._read(f"{site}/robots.txt")
                rules = EVERYTHING if text is None else parse(text)
            except OSError:
                rules = NOTHING
            with self._lock:
                if len(self._rules) >= MAX_HOSTS:
                    self._rules.pop(next(iter(self._rules)))
                self._rules[site] = rules
                self._asking.pop(site, None)
        return rules
