"""Whether others than its owner can reach the app; then visitors are strangers, and it is careful.

It asks in one place what decides about folders of this machine, exports to paths, the machine's own
login, other people's runs, what runs code, and limits. `docs/serving.md` says what follows.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping

PUBLIC = "MORPHING_PUBLIC"
"""Environment variable: 1, others reach the app (as through a proxy, which cannot be seen from
here); 0, whoever reaches it may act as its owner, though it is bound to more than this machine."""
HOST = "GRADIO_SERVER_NAME"
SHARE = "GRADIO_SHARE"
_NO = frozenset({"0", "false", "no", "off"})


def on_space(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this is a Space, where visitors have logins of their own."""
    return bool(environment.get("SPACE_ID"))


def is_public(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether others can reach the app.

    A Space and a shared link always are public. An address other than this machine's own is, unless
    ``MORPHING_PUBLIC`` says that everybody who reaches it is its owner.
    """
    if on_space(environment) or _is_yes(environment.get(SHARE)):
        return True
    if said := environment.get(PUBLIC, "").strip():
        return _is_yes(said)
    return not _is_loopback(environment.get(HOST) or "localhost")


def serve_at(host: str | None, share: bool) -> str:
    """Note where the app is about to be served, for this process and those it starts.

    ``host`` None is what ``GRADIO_SERVER_NAME`` says, else this machine only, or on a Space all.
    Where the app is public, the Hub's client acts with no login that it is not given.

    Returns:
        The host to bind to.
    """
    found = host or os.environ.get(HOST) or ("0.0.0.0" if on_space() else "127.0.0.1")
    os.environ[HOST] = found
    if share:
        os.environ[SHARE] = "True"
    if is_public():
        forget_own_login()
    return found


def is_shared() -> bool:
    """Whether the app is to be served through a link of Gradio's."""
    return _is_yes(os.environ.get(SHARE))


def forget_own_login() -> None:
    """Let the Hub's client take no login of this machine by itself, whenever it is imported."""
    import sys

    os.environ["HF_HUB_DISABLE_IMPLICIT_TOKEN"] = "1"
    if constants := sys.modules.get("huggingface_hub.constants"):
        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True  # type: ignore[attr-defined]


def _is_yes(said: str | None) -> bool:
    return bool(said and said.strip()) and str(said).strip().lower() not in _NO


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
