"""Models on the Hub: pinning, headers by range request, download, search, and plain errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from morphing.errors import MorphingError
from morphing.hub_errors import Subject, ask, hub_errors
from morphing.sources import local, metadata, tokenizer_files
from morphing.sources.content import SMALL_FILES
from morphing.sources.names import split_hub_name
from morphing.sources.source import Inspection, ModelHit

if TYPE_CHECKING:
    from tqdm import tqdm

_SMALL_FILES = (*SMALL_FILES, metadata.CARD)


def commit(repo: str, revision: str | None, token: str | None) -> str:
    """The commit ``revision`` (or the default branch) of a model repository is at."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    sha = ask(Subject.model(repo, revision), lambda: api.model_info(repo, revision=revision).sha)
    if sha is None:
        raise MorphingError(f"The Hub gave no commit for {repo}: try again later.")
    return sha


def inspect_repo(name: str, token: str | None) -> Inspection:
    """Inspect ``org/name[@revision]`` from its headers, configuration and card."""
    from huggingface_hub import HfApi

    repo, revision = split_hub_name(name)
    api = HfApi(token=token)
    subject = Subject.model(repo, revision)
    info = ask(subject, lambda: api.model_info(repo, revision=revision))
    with hub_errors(subject):
        files = [sibling.rfilename for sibling in info.siblings or []]
        metadata.check_files(name, files)
        adapter = metadata.is_adapter(files)
        file = metadata.ADAPTER_CONFIG if adapter else metadata.CONFIG
        config = local.read_json(Path(api.hf_hub_download(repo, file, revision=info.sha)))
        template = None
        for file in tokenizer_files.TEMPLATE_FILES:
            if template is None and file in files:
                beside = Path(api.hf_hub_download(repo, file, revision=info.sha)).parent
                template = tokenizer_files.chat_template(beside)
        if adapter:
            weights = [
                api.parse_safetensors_file_metadata(
                    repo, metadata.ADAPTER_WEIGHTS, revision=info.sha
                )
            ]
        else:
            found = api.get_safetensors_metadata(repo, revision=info.sha)
            weights = list(found.files_metadata.values())
    headers = local.tensor_infos(
        (key, tensor.shape, tensor.dtype)
        for header in weights
        for key, tensor in header.tensors.items()
    )
    card = info.card_data.to_dict() if info.card_data is not None else {}
    return replace(
        metadata.describe(name, config, headers, card, adapter, files),
        has_tokenizer=tokenizer_files.has_tokenizer(files),
        chat_template=template,
    )


def download_repo(
    name: str, token: str | None, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Fetch a repository's small files, then the weight files they call for.

    ``progress`` is called with the bytes of weights there and all of them, from several threads.
    """
    from huggingface_hub import snapshot_download

    repo, revision = split_hub_name(name)
    with hub_errors(Subject.model(repo, revision)):
        folder = Path(
            snapshot_download(
                repo, revision=revision, token=token, allow_patterns=list(_SMALL_FILES)
            )
        )
        files = {path.name for path in folder.iterdir()}
        if metadata.WEIGHTS_INDEX in files:
            # A whole file beside the shards wins, as in transformers and in a folder.
            snapshot_download(
                repo,
                revision=revision,
                token=token,
                allow_patterns=[metadata.WEIGHTS],
                tqdm_class=_reporting(progress) if progress else None,
            )
            weights = local.weight_files(folder)
        elif metadata.ADAPTER_CONFIG in files and metadata.CONFIG not in files:
            weights = (metadata.ADAPTER_WEIGHTS,)
        else:
            weights = (metadata.WEIGHTS, metadata.ADAPTER_WEIGHTS)
        snapshot_download(
            repo,
            revision=revision,
            token=token,
            allow_patterns=list(weights),
            tqdm_class=_reporting(progress) if progress else None,
        )
    return folder


def _reporting(progress: Callable[[int, int], None]) -> type[tqdm]:
    """A bar that draws nothing and passes on the bytes that are on disk."""
    from tqdm import tqdm

    class Reporting(tqdm):
        def display(self, *_: object, **__: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            # The client makes three bars: files, bytes received, and these.
            if self.unit == "B" and not self.desc.startswith("Download"):
                progress(int(self.n), int(self.total or 0))

    return Reporting


def read_tokens(name: str, token: str | None) -> dict[str, int] | None:
    """The tokens of a repository's tokenizer and their ids, see `local.read_tokens`."""
    from huggingface_hub import snapshot_download

    repo, revision = split_hub_name(name)
    with hub_errors(Subject.model(repo, revision)):
        files = list(local.TOKEN_FILES)
        return local.read_tokens(
            Path(snapshot_download(repo, revision=revision, token=token, allow_patterns=files))
        )


def search(query: str, token: str | None, limit: int) -> list[ModelHit]:
    """Models whose id contains ``query``, most downloaded first."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    models = ask(
        Subject.model(query),
        lambda: list(
            api.list_models(search=query, sort="downloads", limit=limit, full=True, cardData=True)
        ),
    )
    hits = []
    for model in models:
        base = model.card_data.base_model if model.card_data is not None else None
        hits.append(
            ModelHit(
                id=model.id,
                downloads=model.downloads or 0,
                likes=model.likes or 0,
                base_models=tuple([base] if isinstance(base, str) else base or []),
                gated=bool(model.gated),
            )
        )
    return hits
