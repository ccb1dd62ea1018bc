"""Claims about manners: opt-outs in every form, robots.txt, how often a host is asked."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.error import HTTPError

import pytest
from builders.hostile_server import hostile_server

from stylear.curate.fetch.guard import GuardedOpener, Limits
from stylear.curate.fetch.loopback import NETWORK
from stylear.curate.fetch.optout import opted_out
from stylear.curate.fetch.pace import RateLimiter, retry_after_s
from stylear.curate.fetch.refused import RequestRefused
from stylear.curate.fetch.robots import EVERYTHING, RobotsCache, Rules, parse
from stylear.curate.fetch.success import SuccessMonitor
from stylear.errors import SourceError

NOW = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
PAST, FUTURE = "25 Jun 2010 15:00:00 GMT", "Fri, 25 Jun 2049 15:00:00 GMT"


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ([], False),
        (["all"], False),
        (["noai"], True),
        (["NoAI"], True),
        (["noimageai"], True),
        (["noindex"], True),
        (["none"], True),
        (["nofollow, noarchive"], False),
        (["nofollow,noimageindex"], True),
        (["nofollow", "noai"], True),  # two headers
        (["otherbot: noindex"], False),
        (["otherbot: noindex, noai"], False),  # the robot's name holds for the whole header
        (["otherbot: noindex", "noai"], True),
        (["stylear: noai"], True),
        (["Stylear: nofollow, noai"], True),
        (["img2dataset: noai"], True),
        (["*: noai"], True),
        (["noai, otherbot: nofollow"], True),
        (["otherbot: noai, stylear: noindex"], True),
        ([f"unavailable_after: {FUTURE}"], False),
        ([f"unavailable_after: {PAST}"], True),
        (["unavailable_after: 2010-06-25"], True),
        (["unavailable_after: Friday, 25-Jun-10 15:00:00 GMT"], True),
        ([f"unavailable_after: {FUTURE}, noai"], True),  # the form that img2dataset misses
        ([f"unavailable_after: {FUTURE}, nofollow"], False),
        ([f"otherbot: unavailable_after: {PAST}"], False),
        ([f"stylear: unavailable_after: {FUTURE}, noai"], True),
        ([f"otherbot: unavailable_after: {FUTURE}, noai"], False),
        (["unavailable_after: some day, noai"], True),
        (["max-image-preview: large, noai"], True),
        (["max-snippet: -1"], False),
        (["", ",,", ":", "::,:"], False),
    ],
)
def test_x_robots_tag_is_read_in_all_its_forms(values: list[str], refused: bool) -> None:
    assert opted_out(values, NOW) is refused


def opener(**limits: object) -> GuardedOpener:
    return GuardedOpener(Limits(allow_networks=(NETWORK,), **limits))  # type: ignore[arg-type]


def outcome(guard: GuardedOpener, url: str) -> str:
    try:
        guard.open(url).close()
    except RequestRefused as refused:
        return refused.name
    except HTTPError as error:
        return f"http-{error.code}"
    return "opened"


def test_opt_outs_come_in_headers() -> None:
    with hostile_server() as (base, _):
        guard = opener()
        outcomes = {
            path: outcome(guard, f"{base}/{path}")
            for path in ("tag/nofollow|otherbot:%20noai", "tag/nofollow|noai", "tdm/0", "tdm/1")
        }
        guard.close()
    assert outcomes == {
        "tag/nofollow|otherbot:%20noai": "opened",
        "tag/nofollow|noai": "opted-out",
        "tdm/0": "opened",
        "tdm/1": "opted-out",
    }


ROBOTS = """
User-agent: otherbot
Disallow: /

User-agent: *
Disallow: /everyone

User-agent: someone
User-agent: Stylear
# a comment
Disallow: /private  # another
Allow: /private/open
Disallow: /*.gif$
Disallow: /a%20b
Disallow:
Disallow: /*/deep/*/end
"""


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", True),
        ("/everyone", True),  # that group is not ours
        ("/private", False),
        ("/private/x.png", False),
        ("/private/open/x.png", True),
        ("/x.gif", False),
        ("/x.gif?a", True),
        ("/a b", False),
        ("/a%20b/c", False),
        ("/1/deep/2/end/3", False),
        ("/1/deep/end", True),
    ],
)
def test_robots_txt_is_read_by_the_standard(path: str, allowed: bool) -> None:
    assert parse(ROBOTS).is_allowed(path) is allowed


def test_groups_for_everyone_hold_where_none_names_us() -> None:
    assert not parse("User-agent: *\nDisallow: /x").is_allowed("/x")
    assert parse("User-agent: other\nDisallow: /").is_allowed("/x")
    assert parse("User-agent: stylear\nDisallow:\n\nUser-agent: *\nDisallow: /").is_allowed("/x")
    assert parse("<html>not found</html>") == EVERYTHING
    assert not Rules(((False, "/"),)).is_allowed("/x")


def test_a_hostile_rule_takes_no_time() -> None:
    rule = "/" + "*a" * 2000
    assert parse(f"User-agent: *\nDisallow: {rule}b").is_allowed("/" + "a" * 4000)


def test_robots_txt_is_asked_for_once_a_site_and_only_on_request() -> None:
    requests: list[str] = []

    def read(url: str) -> str | None:
        requests.append(url)
        if "broken" in url:
            raise OSError("unreachable")
        if "home" in url:
            raise RequestRefused("not-public-address", "home is 127.0.0.1")
        return None if "none" in url else "User-agent: *\nDisallow: /no"

    cache = RobotsCache(read)
    urls = ("http://a/no/1", "http://a/yes", "https://a/no", "http://none/no", "http://broken/yes")
    urls = (*urls, "http://home/yes")
    no = "robots-disallowed"
    refusals = [no, None, no, None, "robots-unreadable", "not-public-address"]
    assert [cache.find_refusal(url) for url in urls * 2] == refusals * 2
    assert sorted(requests) == [
        "http://a/robots.txt",
        "http://broken/robots.txt",
        "http://home/robots.txt",
        "http://none/robots.txt",
        "https://a/robots.txt",
    ]


def test_loopback_is_refused_by_its_address_with_robots_on() -> None:
    """Not as robots-disallowed: nobody was asked. The hint names the flag that helps."""
    guard = GuardedOpener(Limits(robots=True))
    assert outcome(guard, "http://127.0.0.1:9/a.png") == "not-public-address"
    guard.close()
    success = SuccessMonitor("list", 0.5)
    with pytest.raises(SourceError, match="not-public-address 3") as refused:
        success.count({"not-public-address": 3}, lambda: None, last=True)
    assert "--allow-network 127.0.0.0/8" in str(refused.value.hint)
    assert "check the network" not in str(refused.value.hint)


@pytest.mark.parametrize(
    ("text", "outcomes"),
    [
        ("User-agent: *\nDisallow: /tag", ["robots-disallowed", "opened", "robots-disallowed"]),
        (404, ["opened", "opened", "opened"]),
        (503, ["robots-unreadable"] * 3),
    ],
)
def test_the_guard_obeys_robots_txt(text: str | int, outcomes: list[str]) -> None:
    """A redirect to what is disallowed is not followed either."""
    with hostile_server() as (base, server):

        def send(self, argument: str) -> None:  # type: ignore[no-untyped-def]
            body = text.encode() if isinstance(text, str) else b""
            self.answer(body, 200 if isinstance(text, str) else text)

        setattr(server, "send_robots.txt", send)
        guard = opener(robots=True)
        paths = ("tag/nofollow", "ok", "to//tag/nofollow")
        assert [outcome(guard, f"{base}/{path}") for path in paths] == outcomes
        assert server.seen.count("/robots.txt") == 1
        blind = opener()
        assert outcome(blind, f"{base}/tag/nofollow") == "opened"
        assert server.seen.count("/robots.txt") == 1
        for one in (guard, blind):
            one.close()


class Clock:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 100.0, [0.0]

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(round(seconds, 6))


def test_a_host_is_asked_at_its_rate_and_others_meanwhile() -> None:
    clock = Clock()
    pace = RateLimiter(4, lambda: clock.now, clock.sleep)
    waits = [pace.wait("a", 30) for _ in range(8)]
    assert waits == [
        0,
        0,
        0,
        0,
        0.25,
        0.25,
        0.25,
        0.25,
    ]  # a burst of a second's worth, then the rate
    assert [pace.wait("b", 30) for _ in range(4)] == [0, 0, 0, 0]
    assert pace.wait("a", 0.1) is None  # would take longer than the patience
    assert [RateLimiter(None).wait("a", 0) for _ in range(99)] == [0] * 99
    slow = RateLimiter(0.5, lambda: clock.now, clock.sleep)
    assert [slow.wait("c", 30) for _ in range(3)] == [0, 2, 2]


def test_a_host_that_asks_for_rest_gets_it() -> None:
    clock = Clock()
    pace = RateLimiter(None, lambda: clock.now, clock.sleep)
    pace.back_off("a", 7)
    pace.back_off("a", 3)  # does not shorten it
    assert pace.wait("b", 30) == 0
    assert pace.wait("a", 5) is None
    assert pace.wait("a", 30) == 7
    assert pace.wait("a", 30) == 0
    pace.back_off("a", 1e12)
    assert pace.wait("a", 3600) == 3600  # at most an hour


def test_retry_after_is_a_number_or_a_date() -> None:
    assert retry_after_s("120") == 120
    assert retry_after_s(" 0 ") == 0
    assert retry_after_s("Thu, 01 Jan 2026 00:01:30 GMT", NOW) == 90
    assert retry_after_s("Thu, 01 Jan 2015 00:01:30 GMT", NOW) == 0
    assert [retry_after_s(text) for text in (None, "", "soon", "-5", "1e9")] == [None] * 5


def test_the_guard_waits_when_it_is_asked_to_and_only_then() -> None:
    with hostile_server() as (base, server):
        guard = opener()
        clock = Clock()
        guard.pace = RateLimiter(None, lambda: clock.now, clock.sleep)
        assert outcome(guard, f"{base}/later/20") == "opened"
        assert clock.slept == [0, 20]
        assert outcome(guard, f"{base}/later/900") == "http-429"  # too long: the next runs may try
        assert outcome(guard, f"{base}/ok") == "retry-later"  # the whole host is left alone
        elsewhere = base.replace("127.0.0.1", "127.0.0.2")  # where nobody listens
        assert outcome(guard, f"{elsewhere}/ok") == "connection-refused"
        guard.close()
    assert server.seen.count("/later/20") == 2
    assert server.seen.count("/later/900") == 1
    assert "/ok" not in server.seen
