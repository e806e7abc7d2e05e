"""What can go wrong between Morphing and the Hub, in one sentence each; and asking again.

The one translator of the exceptions of the Hub's client. Whoever talks to the Hub says what it is
about (a `Subject`) and asks by :func:`ask`, or wraps calls that ask again by themselves (downloads,
commits) in :func:`hub_errors`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from morphing.errors import MorphingError, is_disk_full

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

LOGIN = "log in with `hf auth login`, by the variable HF_TOKEN or in the app"
BUSY = frozenset({408, 429, 500, 502, 503, 504})
"""Answers after which the same question may be answered a little later: too many requests, too
slow, a server that is down for a moment."""
WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds before each further try, where the Hub does not say itself when to come back."""
LONGEST_WAIT = 60.0
"""Seconds: a Hub that asks for more patience than this is not waited for, but quoted."""

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """What the Hub is asked about, in the words of the sentences.

    Args:
        what: begins a sentence, for example "The model org/name".
        page: of the repository on the Hub, such as "datasets/org/name"; where it is gated, its
            conditions are accepted there.
        revision: the branch, tag or commit asked for, if one was.
        doing: what is being written, where something is: completes "The Hub refused ...".
        instead: completes "check the network, ...": what works without it.
    """

    what: str
    page: str = ""
    revision: str | None = None
    doing: str = ""
    instead: str = ""

    @classmethod
    def model(cls, name: str, revision: str | None = None) -> Subject:
        """A model repository that is read."""
        instead = ", or use zoo: models or a local folder"
        return cls(f"The model {name}", name, revision, instead=instead)

    @classmethod
    def writing(cls, doing: str) -> Subject:
        """Something that is sent to the Hub or done there in a user's name."""
        return cls(doing, doing=doing)


def ask(subject: Subject, question: Callable[[], T]) -> T:
    """The Hub's answer; while the Hub is busy, ``question`` is asked up to five times.

    ``question`` must do no harm when it is asked twice.

    Raises:
        MorphingError: as `hub_errors` makes it.
    """
    from huggingface_hub.errors import HfHubHTTPError

    with hub_errors(subject):
        for wait in WAITS:
            try:
                return question()
            except HfHubHTTPError as error:
                if error.response.status_code not in BUSY:
                    raise
                told = _seconds_until_free(error)
                if told is not None and told > LONGEST_WAIT:
                    raise
                time.sleep(wait if told is None else told)
        return question()


@contextmanager
def hub_errors(subject: Subject) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence with the mend; tokens never show.

    Raises:
        MorphingError: whatever the client raised.
    """
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        NotASafetensorsRepoError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        SafetensorsParsingError,
    )

    what = subject.what
    try:
        yield
    except LocalTokenNotFoundError as error:
        raise MorphingError(
            f"There is no Hub login for {subject.doing or what}: {LOGIN}."
        ) from error
    except (NotASafetensorsRepoError, RemoteEntryNotFoundError) as error:
        raise MorphingError(
            f"{what} lacks a file that is needed to merge it: choose a model saved as safetensors"
            " with save_pretrained."
        ) from error
    except SafetensorsParsingError as error:
        raise MorphingError(
            f"{what} holds a file that is no safetensors file: choose another revision."
        ) from error
    except HFValidationError as error:
        if subject.doing:
            raise MorphingError(f"The Hub refused {subject.doing}: {_words(error)}.") from error
        raise MorphingError(
            f"{what} is neither a Hub id (org/name) nor a file or folder that exists here."
        ) from error
    except HfHubHTTPError as error:
        raise MorphingError(_answered(subject, error)) from error
    except (
        ConnectionError,
        httpx2.TransportError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    ) as error:
        where = f"the Hub at {constants.ENDPOINT} cannot be reached"
        if subject.doing:
            message = (
                f"{where[0].upper()}{where[1:]} for {subject.doing}: check the network and try"
            )
            raise MorphingError(f"{message} again.") from error
        raise MorphingError(
            f"{what} is not in the cache, and {where}: check the network{subject.instead}."
        ) from error
    except ValueError as error:
        if not subject.doing:  # reading, it is no complaint of the client's
            raise
        raise MorphingError(f"The Hub refused {subject.doing}: {_words(error)}.") from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise MorphingError(
            f"The disk is full while downloading {what[0].lower()}{what[1:]} to"
            f" {constants.HF_HUB_CACHE}: free some space, or set HF_HOME to a larger disk."
        ) from error


def is_gated(subject: Subject) -> str:
    """The sentence of a repository whose conditions were not accepted."""
    from huggingface_hub import constants

    return (
        f"{subject.what} is gated: accept its conditions at"
        f" {constants.ENDPOINT}/{subject.page}, then {LOGIN}, with a token that may read it."
    )


def is_missing(subject: Subject) -> str:
    """The sentence of a repository that is not there, or not for whoever asks."""
    return (
        f"{subject.what} is not on the Hub, or it is private and the token given, if any, may not"
        f" read it: check the id, or {LOGIN}."
    )


def has_no_revision(subject: Subject) -> str:
    """The sentence of a revision that is not there."""
    return (
        f"{subject.what} has no revision {subject.revision!r} on the Hub: give one of its branches,"
        " tags or commits."
    )


def _answered(subject: Subject, error: HfHubHTTPError) -> str:
    """The sentence of an answer by the Hub that is no success."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    status = error.response.status_code
    if status == 429:
        return _too_many(subject, error)
    if subject.doing:
        if status == 401 and not isinstance(error, RepositoryNotFoundError):
            return (
                f"The Hub does not accept the login for {subject.doing} ({_said(error)}): {LOGIN}."
            )
        return f"The Hub refused {subject.doing} (HTTP {status}): {_said(error)}."
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError too, so it comes first
        return is_gated(subject)
    if isinstance(error, RepositoryNotFoundError):
        return is_missing(subject)
    if isinstance(error, RevisionNotFoundError):
        return has_no_revision(subject)
    what = f"{subject.what[0].lower()}{subject.what[1:]}"
    if status in (401, 403):
        return f"The Hub does not accept the token given for {what} (HTTP {status}): {LOGIN} again."
    return f"The Hub answered HTTP {status} for {what}: try again later."


def _too_many(subject: Subject, error: HfHubHTTPError) -> str:
    seconds = _seconds_until_free(error)
    when = "later" if seconds is None else f"in {max(1, round(seconds / 60))} minutes"
    about = subject.doing or f"{subject.what[0].lower()}{subject.what[1:]}"
    return (
        f"The Hub counts too many requests (HTTP 429) to go on with {about}: try again {when};"
        " with a login it allows more."
    )


def _seconds_until_free(error: HfHubHTTPError) -> float | None:
    """When a busy Hub asks to be asked again, if it says so."""
    from huggingface_hub.utils import parse_ratelimit_headers

    headers = error.response.headers
    limit = parse_ratelimit_headers(headers)
    if error.response.status_code == 429 and limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    after = headers.get("Retry-After", "")
    return float(after) if after.isdecimal() else None


def _said(error: HfHubHTTPError) -> str:
    return " ".join((error.server_message or "it gave no reason").split()).rstrip(".")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".")
