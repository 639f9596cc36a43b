"""Weights on the Hugging Face hub, with its own mixin; needs `pip install vidreason[hub]`."""

from pathlib import Path
from typing import Any

from vidreason.core.errors import DataError
from vidreason.core.files import write_atomic

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
except ImportError as error:
    fix = "pip install 'vidreason[hub]'"
    raise DataError("the hub", f"needs huggingface_hub ({error})", fix) from None

_PATTERNS = ["model.*", "config.yaml", "card.json", "README.md"]


class Weights(ModelHubMixin, library_name="vidreason", license="mit"):
    """A folder of weights with the hub's `save_pretrained`, `from_pretrained` and `push_to_hub`.

    `vidreason.runs.train.load_weights(weights.folder)` loads the task.

    Args:
        folder: Folder written by `vidreason export`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def _save_pretrained(self, save_directory: Path) -> None:
        for path in self.folder.iterdir():
            with write_atomic(Path(save_directory) / path.name) as temporary:
                temporary.write_bytes(path.read_bytes())

    def generate_model_card(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the card in the folder."""
        from huggingface_hub import ModelCard

        return ModelCard((self.folder / "README.md").read_text("utf-8"))

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **_: Any,
    ) -> "Weights":
        if Path(model_id).is_dir():
            return cls(Path(model_id))
        found = snapshot_download(
            model_id,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
            allow_patterns=_PATTERNS,
        )
        return cls(Path(found))


def download(name: str) -> Path:
    """Returns the folder of a model on the hub, downloaded at most once.

    Raises:
        DataError: If there is no such model, or the hub cannot be reached.
    """
    try:
        return Weights.from_pretrained(name).folder
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        problem = f"is not available from the hub ({str(error).splitlines()[0]})"
        raise DataError(
            "--weights", f"{name!r} {problem}", "check the name and the network"
        ) from None


def push(folder: Path, name: str) -> str:
    """Uploads a folder of weights.

    Returns:
        Address of the model on the hub.

    Raises:
        DataError: If the hub refuses or cannot be reached.
    """
    try:
        return str(Weights(folder).push_to_hub(name))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        problem = f"cannot be uploaded ({str(error).splitlines()[0]})"
        raise DataError("--push", f"{name!r} {problem}", "log in with `hf auth login`") from None
