"""What a failing answer asks for is read as RFC 9110 has it, and nothing else is taken for it."""

from __future__ import annotations

import urllib.error
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from somaresil.errors import CircuitOpen
from somaresil.retryafter import asked_wait, pushed_back, seconds_of

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def wall():
    return NOW.timestamp()


class Told(Exception):
    """With an attribute, or with headers."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes)


def httpx_error(headers):
    request = httpx.Request("GET", "http://test/")
    response = httpx.Response(429, headers=headers, request=request)
    return httpx.HTTPStatusError("busy", request=request, response=response)


@given(st.integers(0, 10**9))
def test_seconds_are_seconds(seconds):
    """Whole ones, as the RFC has them."""
    assert seconds_of(f" {seconds} ", wall) == seconds


@given(st.integers(-(10**6), 10**8))
def test_a_date_is_the_time_until_it(ahead):
    """One that has passed asks for nothing."""
    date = format_datetime(NOW + timedelta(seconds=ahead), usegmt=True)
    assert seconds_of(date, wall) == max(0.0, float(ahead))


@given(st.text(max_size=80))
def test_any_text_is_a_wait_or_refused(text):
    """A finite number of seconds, or ``ValueError``: no other end."""
    try:
        seconds = seconds_of(text, wall)
    except ValueError:
        return
    assert 0.0 <= seconds < 1e16


@pytest.mark.parametrize(
    "text",
    ["", "soon", "-1", "+5", "1e9", "nan", "inf", "٣", "7 s", "Thu, 01 Jan 2026 00:00:07", "Thu, 99 Jan 2026 00:00:07 GMT", "9" * 65],
)
def test_what_is_neither_is_refused(text):
    """Rather no pause of the server's than one that it has not meant."""
    with pytest.raises(ValueError, match="Retry-After"):
        seconds_of(text, wall)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Told(retry_after=7), 7.0),
        (Told(retry_after=timedelta(minutes=1)), 60.0),
        (Told(retry_after=-3.0), 0.0),
        (CircuitOpen("llm", 12.5), 12.5),
        (httpx_error({"Retry-After": "7"}), 7.0),
        (httpx_error({"retry-after-ms": "1500", "retry-after": "2"}), 1.5),
        (httpx_error({"Retry-After": "Thu, 01 Jan 2026 00:00:07 GMT"}), 7.0),
        (aiohttp.ClientResponseError(None, (), status=429, headers={"Retry-After": "7"}), 7.0),
        (urllib.error.HTTPError("http://test/", 503, "busy", Message(), None), None),
        (Told(headers={"retry-after": "0.5"}), 0.5),
        (Told(headers={"Retry-After": "7"}, response=None), 7.0),
        (Told(retry_after=None), None),
        (Told(headers="7"), None),
        (Told(), None),
    ],
)
def test_it_is_found_where_clients_have_it(error, seconds):
    """In an attribute, in the answer, or in headers of the error itself."""
    assert asked_wait(error, wall) == seconds


@pytest.mark.parametrize("said", ["7", True, float("nan"), object()])
def test_an_attribute_is_a_number(said):
    """Texts are for headers."""
    with pytest.raises(ValueError, match="retry_after"):
        asked_wait(Told(retry_after=said), wall)


# -- pushback -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (httpx_error({}), 0.0),
        (httpx_error({"Retry-After": "7"}), 7.0),
        (httpx_error({"Retry-After": "later"}), 0.0),
        (urllib.error.HTTPError("http://test/", 503, "busy", Message(), None), 0.0),
        (aiohttp.ClientResponseError(None, (), status=429), 0.0),
        (Told(status_code=503), 0.0),
        (Told(retry_after=5), 5.0),
        (Told(response=None, status=429), 0.0),
        (urllib.error.HTTPError("http://test/", 404, "not there", Message(), None), None),
        (aiohttp.ClientResponseError(None, (), status=500), None),
        (Told(status="429"), None),
        (Told(code=503.0), None),
        (Told(), None),
        (ValueError(429), None),
    ],
)
def test_an_answer_pushes_back_by_its_status_or_by_what_it_asks_for(error, asked):
    """429 and 503, as the clients of HTTP carry them, and any Retry-After; nothing else is taken for it."""
    assert pushed_back(error, wall) == asked
