"""What can go wrong when a dataset comes from the Hub, in one sentence each."""

from collections.abc import Iterator
from contextlib import contextmanager

from morphing.benchmarks.benchmark import Benchmark
from morphing.errors import MorphingError


@contextmanager
def hub_errors(benchmark: Benchmark) -> Iterator[None]:
    """Turn the Hub clients' exceptions about ``benchmark``'s dataset into MorphingErrors."""
    import httpx2
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    try:
        yield
    except (HFValidationError, HfHubHTTPError, DatasetNotFoundError) as error:
        raise MorphingError(_sentence(benchmark, error)) from error
    except (
        ConnectionError,
        httpx2.TransportError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    ) as error:
        raise MorphingError(
            f"The Hub can't be reached for the dataset {benchmark.dataset!r} of benchmark"
            f" {benchmark.name!r}: check the network, or use a zoo or local dataset."
        ) from error
    except RuntimeError as error:
        if "scripts are no longer supported" not in str(error):
            raise
        raise MorphingError(
            f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r} is a program and"
            " Morphing runs no code from the Hub: choose a dataset in Parquet, JSON or CSV."
        ) from error
    except DatasetsError as error:
        reason = str(error).strip().splitlines()[0]
        raise MorphingError(
            f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r} can't be read:"
            f" {reason.rstrip('.')}."
        ) from error


def _sentence(benchmark: Benchmark, error: Exception) -> str:
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"The dataset {benchmark.dataset!r} of benchmark {benchmark.name!r}"
    # `datasets` has one exception for all three and drops its cause: its message tells.
    said = str(error) if isinstance(error, DatasetNotFoundError) else ""
    if isinstance(error, HFValidationError):
        return f"{what} is neither a Hub id (org/name) nor a file or folder that exists here."
    # A GatedRepoError is a RepositoryNotFoundError too, so it comes first.
    if isinstance(error, GatedRepoError) or "gated" in said:
        return f"{what} is gated: ask for access on its page on the Hub and log in with your token."
    if isinstance(error, RevisionNotFoundError) or said.startswith("Revision"):
        return f"{what} has no revision {benchmark.revision!r} on the Hub."
    if isinstance(error, RepositoryNotFoundError) or said:
        return (
            f"{what} is not on the Hub, or it is private and your token (if any) gives no access:"
            " check the id and log in."
        )
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else "with an error"
    return f"{what} can't be fetched: the Hub answered {status}; try again later."
