"""robots.txt as RFC 9309 reads it: groups by robot, the longest match wins, `*` and `$` in paths."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from stylear.curate.fetch.refused import RequestRefused

AGENT = "stylear"
MAX_BYTES = 512_000  # what a robot must at least read (RFC 9309, 2.5)
MAX_HOSTS = 20_000  # kept in the cache


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that apply to this robot: (allowed, path pattern)."""

    lines: tuple[tuple[bool, str], ...] = ()

    def is_allowed(self, path: str) -> bool:
        """Whether a path with its query may be requested: the longest pattern decides, allow wins ties."""
        matches = [(len(rule), allowed) for allowed, rule in self.lines if _matches(rule, path)]
        return max(matches, default=(0, True))[1]


EVERYTHING = Rules()
OF_ADDRESS = ("not-public-address", "unknown-host")  # reasons that hold for all URLs of a site


def parse(text: str, agent: str = AGENT) -> Rules:
    """Parse the rules for `agent`: those of groups that name it, or else those for everyone."""
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
    """Whether a path matches the pattern of a rule; percent-escapes are compared unescaped."""
    whole = rule.endswith("$")
    first, *parts = (unquote(part) for part in rule.removesuffix("$").split("*"))
    path = unquote(path)
    if not path.startswith(first):
        return False
    last = parts.pop() if whole and parts else None
    at = len(first)
    for part in parts:  # each as early as it can be: linear, whatever the rule
        at = path.find(part, at)
        if at < 0:
            return False
        at += len(part)
    if last is not None:
        return len(path) - at >= len(last) and path.endswith(last)
    return at == len(path) if whole else True


class RobotsCache:
    """Caches the rules of each site. `read` fetches the text, None for a site without rules."""

    def __init__(self, read: Callable[[str], str | None]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._rules: dict[str, Rules | str] = {}
        self._asking: dict[str, threading.Lock] = {}

    def find_refusal(self, url: str) -> str | None:
        """Why a URL may not be requested: robots-disallowed, robots-unreadable (RFC 9309, 2.3.1.4: nothing
        may then), not-public-address or unknown-host; None when it may."""
        parts = urlsplit(url)
        rules = self._find_rules(f"{parts.scheme}://{parts.netloc}")
        if isinstance(rules, str):
            return rules
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return None if rules.is_allowed(path) else "robots-disallowed"

    def _find_rules(self, site: str) -> Rules | str:
        """The rules of a site, or the reason why there are none to obey."""
        with self._lock:
            if site in self._rules:
                return self._rules[site]
            asking = self._asking.setdefault(site, threading.Lock())
        with asking:  # the other threads of this site wait for the first
            with self._lock:
                if site in self._rules:
                    return self._rules[site]
            rules = self._fetch_rules(site)
            with self._lock:
                if len(self._rules) >= MAX_HOSTS:
                    self._rules.pop(next(iter(self._rules)))
                self._rules[site] = rules
                self._asking.pop(site, None)
        return rules

    def _fetch_rules(self, site: str) -> Rules | str:
        try:
            text = self._read(f"{site}/robots.txt")
        except RequestRefused as refused:
            return refused.name if refused.name in OF_ADDRESS else "robots-unreadable"
        except OSError:
            return "robots-unreadable"
        return EVERYTHING if text is None else parse(text)
