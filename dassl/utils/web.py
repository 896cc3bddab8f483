"""Opening web addresses: a token goes to the host that it is for, and to no other."""

from __future__ import annotations

import os
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from dassl.utils.errors import UserError

TIMEOUT = 60  # seconds without a byte
TOKENS = {"https://huggingface.co": "HF_TOKEN"}  # origin → environment variable with its token
_REFUSALS = (401, 403, 429)  # HTTP: who are you; not you; too often for somebody unknown
_HEADERS = {"User-Agent": "Mozilla/5.0 (compatible; dassl)"}  # some servers turn Python's away


class DownloadError(UserError, OSError):
    """A file could not be fetched, or what came is not what was expected."""


def open_url(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """Opens an address for reading; the caller closes the answer.

    It is asked for without a token first, and with one only where this is refused and TOKENS names
    a variable for its origin. A redirect to another scheme, host or port goes without the token.

    Raises:
        ValueError: it is no address.
        DownloadError: the token cannot be one.
        OSError, http.client.HTTPException: as `urllib` raises them.
    """
    try:
        return _open(url, headers, "")
    except urllib.error.HTTPError as error:
        token = _token(url)
        if not token or error.code not in _REFUSALS or origin(error.url or url) != origin(url):
            raise
        error.close()
    return _open(url, headers, token)


def refusal_advice(url: str) -> str:
    """Returns what helps where an address was refused (401, 403); "" if nothing is known."""
    variable = TOKENS.get(origin(url))
    if variable is None:
        return ""
    if _token(url):
        return (
            f". It was refused with the token of {variable} as well: the token may be expired, the "
            "terms on the page not accepted, or the file not there"
        )
    return (
        f". It may need an account: accept the terms on its page, make a token that may read, and "
        f"put it into the environment as {variable}. The host says the same of what is not there"
    )


def origin(url: str) -> str:
    """Returns scheme, host and port of an address, as browsers tell origins apart."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _token(url: str) -> str:
    variable = TOKENS.get(origin(url), "")
    token = os.environ.get(variable, "").strip()
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):  # `http` would print it with its error
        raise DownloadError(
            f"{variable} holds blanks or characters that no token has; copy the token anew"
        )
    return token


def _open(url: str, headers: Mapping[str, str] | None, token: str) -> Any:
    request = urllib.request.Request(url, headers={**_HEADERS, **(headers or {})})
    if token:
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects; only those within one origin take the token along."""

    def redirect_request(self, request: Any, *args: Any) -> urllib.request.Request | None:
        new = super().redirect_request(request, *args)
        token = request.unredirected_hdrs.get("Authorization")
        if new is not None and token and origin(new.full_url) == origin(request.full_url):
            new.add_unredirected_header("Authorization", token)
        return new
