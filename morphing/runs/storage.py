"""Where a run's Optuna study is kept: the journal in its folder, or a database by its URL."""

from __future__ import annotations

import json
import logging
import os
import secrets
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from morphing.errors import MorphingError, is_disk_full
from morphing.runs.files import FOREIGN, Name, read_json, write_atomically
from morphing.runs.journal import open_journal
from morphing.runs.leases import grace_seconds
from morphing.runs.measures import Direction

if TYPE_CHECKING:
    import optuna
    from sqlalchemy.engine import URL, Connection, Engine

STORAGE_VARIABLE = "MORPHING_STORAGE"
"""Environment variable: a run's storage URL with its password, which is written nowhere."""
JOURNAL = "journal.log"

_FILE = "storage.json"
JOURNAL_STUDY = "search"
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
_CONNECT_SECONDS = 10
_SQLITE_SECONDS = 60
"""For how long a worker waits until another has written."""


@dataclass(frozen=True)
class Place:
    """A study in a database: the storage's URL without a password, and the study's name there."""

    __pydantic_config__ = FOREIGN

    url: Name
    study: Name


_PLACE = TypeAdapter(Place)
_MEND = "copy it again from where the run was made"


def keep_elsewhere(folder: Path, url: str) -> None:
    """Remember that the study of the new run in ``folder`` is kept at a storage URL.

    Raises:
        MorphingError: the text is no URL of a database.
    """
    name = f"{folder.name}-{secrets.token_hex(4)}"  # a database may hold many runs' studies
    place = Place(without_password(url), name)
    write_atomically(folder / _FILE, json.dumps(asdict(place)).encode())


def place_of(folder: Path) -> Place | None:
    """Where a run's study is; None: in its folder.

    Raises:
        MorphingError: the file that says so holds something else.
    """
    path = folder / _FILE
    return read_json(path, _PLACE, _MEND) if path.exists() else None


def check_storage(url: str) -> None:
    """Try to open a storage, and make its tables if it has none.

    Raises:
        MorphingError: the text is no URL of a database, the database's driver is missing, or its
            server is not there or refuses.
    """
    _open_database(_parsed(url))


def open_study(
    folder: Path, directions: Sequence[Direction], objectives: Sequence[str], url: str | None = None
) -> optuna.Study:
    """A run's study, made if missing.

    Args:
        folder: the run's.
        directions: of the objectives, ``maximize`` or ``minimize``.
        objectives: their names.
        url: of the run's storage again, where it has a password that is not in the environment.

    Raises:
        MorphingError: as :func:`check_storage`, or the run is kept elsewhere than ``url``.
    """
    import optuna

    # It would announce every study it opens, between the lines of our own output.
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    place = place_of(folder)
    if place is not None:
        database = _with_password(place, url, folder)
        _check_file(database)
        storage: optuna.storages.BaseStorage = _open_database(database)
    elif url is not None:
        raise MorphingError(
            f"The run {folder.name} is kept in its own folder: leave --storage out."
        )
    else:
        storage = open_journal(folder / JOURNAL)
    name = place.study if place else JOURNAL_STUDY
    with plain_failures():
        try:  # first, since making one writes even where there is one
            study = optuna.load_study(study_name=name, storage=storage)
        except KeyError:
            study = _make_study(storage, name, directions, objectives)
    if [direction.name.lower() for direction in study.directions] != list(directions):
        raise MorphingError(
            f"The study of {folder} has other objectives than its spec: copy the run again from"
            " where it was made."
        )
    return study


def _check_file(url: URL) -> None:
    """Refuse a database in a file that is not there: SQLite would make it, wherever a run says."""
    if url.drivername.startswith("sqlite") and not Path(str(url.database)).is_file():
        raise MorphingError(
            f"The run's database {url.database} is not there: put it back where it was."
        )


def _make_study(
    storage: optuna.storages.BaseStorage,
    name: str,
    directions: Sequence[Direction],
    objectives: Sequence[str],
) -> optuna.Study:
    import optuna

    study = optuna.create_study(
        storage=storage, study_name=name, directions=list(directions), load_if_exists=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(list(objectives))
    return study


@contextmanager
def plain_failures() -> Iterator[None]:
    """Say in a sentence that a database failed, or that the disk is full."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise MorphingError(
            f"The run's storage failed ({_reason(error)}): see to the database, then resume the"
            " run; what was told is kept."
        ) from error
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise MorphingError(
            "The disk that holds the run is full: free some space and resume the run; what was"
            " told is kept."
        ) from error


def without_password(url: str) -> str:
    """A storage URL without its password, as the run's folder keeps it.

    Raises:
        MorphingError: the text is no URL of a database.
    """
    return _shown(_parsed(url))


def _parsed(url: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise MorphingError(
            "The storage is no database URL: write one as postgresql://user@host/database."
        ) from error
    if parsed.drivername.startswith("sqlite") and parsed.database not in (None, "", ":memory:"):
        parsed = parsed.set(database=str(Path(str(parsed.database)).resolve()))
    return parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))


def _shown(url: URL) -> str:
    from sqlalchemy.engine import URL

    query = {name: value for name, value in url.query.items() if name != "password"}
    parts = (url.drivername, url.username, None, url.host, url.port, url.database, query)
    return URL.create(*parts).render_as_string()


def _with_password(place: Place, given: str | None, folder: Path) -> URL:
    if given is not None:
        if without_password(given) != place.url:
            raise MorphingError(
                f"The run {folder.name} is kept in {place.url}: give that as --storage, or leave"
                " it out."
            )
        return _parsed(given)
    known = os.environ.get(STORAGE_VARIABLE)
    return _parsed(known if known and without_password(known) == place.url else place.url)


def _open_database(url: URL) -> optuna.storages.RDBStorage:
    """Optuna's storage in a database, with heartbeats."""
    import optuna
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import NoSuchModuleError, SQLAlchemyError

    shown = _shown(url)
    options: dict[str, object] = {"pool_pre_ping": True}
    if url.drivername.startswith("postgresql"):
        options["connect_args"] = {"connect_timeout": _CONNECT_SECONDS}
    elif url.drivername.startswith("sqlite"):
        options["connect_args"] = {"timeout": _SQLITE_SECONDS}
    logging.getLogger("alembic").setLevel(logging.WARNING)
    grace = max(2, round(grace_seconds()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = optuna.storages.RDBStorage(
                url.render_as_string(hide_password=False),
                engine_kwargs=options,
                heartbeat_interval=max(1, grace // 6),
                grace_period=grace,
            )
        _prepare(storage.engine)
        return storage
    except NoSuchModuleError as error:
        raise MorphingError(
            f"The storage {shown} is of no database known here: write one as"
            " postgresql://user@host/database."
        ) from error
    except ImportError as error:
        mend = (
            "pip install 'morphing[postgres]'"
            if url.drivername == "postgresql+psycopg"
            else f"install the one for {url.drivername}"
        )
        raise MorphingError(
            f"The storage {shown} needs a driver that is missing: {mend}."
        ) from error
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise MorphingError(
            f"The storage {shown} cannot be used ({_reason(error)}): check that its server runs and"
            " lets you in, and the URL."
        ) from error


def _prepare(engine: Engine) -> None:
    """See to it that a trial's state changes in one step, and that heartbeats are comparable."""
    from sqlalchemy import event

    if engine.dialect.name == "sqlite" and engine.url.database not in (None, "", ":memory:"):
        # SQLite has no locks of rows, and Python's driver reads outside of transactions, so that
        # two workers could both read that a trial waits, and take it.
        def begin_by_hand(connection: Any, record: object) -> None:
            connection.isolation_level = None

        def lock_at_once(connection: Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        event.listen(engine, "connect", begin_by_hand)
        event.listen(engine, "begin", lock_at_once)
    elif engine.dialect.name == "postgresql":
        # Optuna keeps heartbeats in the session's time zone, which is not all workers' and may
        # change its hour by night.
        def in_one_time_zone(connection: Any, record: object) -> None:
            with connection.cursor() as cursor:
                cursor.execute("SET TIME ZONE 'UTC'")
            connection.commit()

        event.listen(engine, "connect", in_one_time_zone)
    engine.dispose()  # connections made before


def _reason(error: BaseException) -> str:
    """The first line of a database's own message, which contains no password."""
    cause = error.__cause__ if error.__cause__ is not None else error
    words = getattr(cause, "orig", None) or cause
    lines = [line.strip() for line in str(words).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(words).__name__
