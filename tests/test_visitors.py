"""Who counts as a stranger: one answer for every way in which the app can be served."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import pytest

from morphing.visitors import is_public, serve_at

HOSTS = {
    None: False,
    "": False,
    "127.0.0.1": False,
    "127.8.8.8": False,
    "localhost": False,
    "LOCALHOST": False,
    "::1": False,
    "[::1]": False,
    "0.0.0.0": True,
    "::": True,
    "192.168.1.7": True,
    "10.0.0.1": True,
    "my-machine.lan": True,
    "127.0.0.1.evil.example": True,
}
SAID = {
    None: None,
    "": None,
    " ": None,
    "1": True,
    "yes": True,
    "0": False,
    "False": False,
    "no": False,
}


@pytest.mark.parametrize("host", HOSTS, ids=str)
def test_all_combinations(host: str | None) -> None:
    for space, share, said in itertools.product((None, "org/app"), (None, "False", "True"), SAID):
        given = {
            "SPACE_ID": space,
            "GRADIO_SHARE": share,
            "MORPHING_PUBLIC": said,
            "GRADIO_SERVER_NAME": host,
        }
        environment = {name: value for name, value in given.items() if value is not None}
        certain = space is not None or share == "True"
        meant = HOSTS[host] if SAID[said] is None else SAID[said]
        assert is_public(environment) == (certain or meant), environment


@pytest.mark.parametrize(
    ("host", "share", "said", "bound", "public"),
    [
        (None, False, {}, "127.0.0.1", False),
        ("0.0.0.0", False, {}, "0.0.0.0", True),
        ("0.0.0.0", False, {"MORPHING_PUBLIC": "0"}, "0.0.0.0", False),
        (None, False, {"GRADIO_SERVER_NAME": "0.0.0.0"}, "0.0.0.0", True),
        ("127.0.0.1", False, {"GRADIO_SERVER_NAME": "0.0.0.0"}, "127.0.0.1", False),
        (None, True, {"MORPHING_PUBLIC": "0"}, "127.0.0.1", True),
        (None, False, {"SPACE_ID": "org/app", "MORPHING_PUBLIC": "0"}, "0.0.0.0", True),
        (None, False, {"MORPHING_PUBLIC": "1"}, "127.0.0.1", True),
    ],
)
def test_where_it_is_served_is_known_to_all_that_follows(
    monkeypatch: pytest.MonkeyPatch,
    host: str | None,
    share: bool,
    said: dict[str, str],
    bound: str,
    public: bool,
) -> None:
    import huggingface_hub.constants as constants

    for name in ("SPACE_ID", "MORPHING_PUBLIC", "GRADIO_SERVER_NAME", "GRADIO_SHARE"):
        monkeypatch.setenv(name, said.get(name, ""))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    assert serve_at(host, share) == bound
    assert is_public() == public
    assert public == constants.HF_HUB_DISABLE_IMPLICIT_TOKEN
    # A search is a process of its own: it knows the same.
    program = "from morphing.visitors import is_public; print(is_public())"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ, check=True
    )
    assert told.stdout.strip() == str(public)
