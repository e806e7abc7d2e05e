"""What can go wrong when something is sent to the Hub, in one sentence each."""

from collections.abc import Iterator
from contextlib import contextmanager

from morphing.errors import MorphingError

LOGIN = "log in with `hf auth login` or in the app"


@contextmanager
def plain_refusals(doing: str) -> Iterator[None]:
    """Turn the Hub client's exceptions into MorphingErrors that quote the Hub, never a token.

    ``doing`` completes "The Hub refused ...".
    """
    import httpx2
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    try:
        yield
    except LocalTokenNotFoundError as error:
        raise MorphingError(f"There is no Hub login for {doing}: {LOGIN}.") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        words = " ".join((error.server_message or "it gave no reason").split()).rstrip(".")
        if status == 401 and not isinstance(error, RepositoryNotFoundError):
            message = f"The Hub does not accept the login for {doing} ({words}): {LOGIN} again"
        else:
            message = f"The Hub refused {doing} (HTTP {status}): {words}"
        raise MorphingError(f"{message}.") from error
    except ValueError as error:  # of the client's own checks, and what it makes of the card's
        words = " ".join(str(error).split()).rstrip(".")
        raise MorphingError(f"The Hub refused {doing}: {words}.") from error
    except (httpx2.TransportError, OfflineModeIsEnabled) as error:
        raise MorphingError(
            f"The Hub at {constants.ENDPOINT} cannot be reached for {doing}: check the network"
            " and try again."
        ) from error
