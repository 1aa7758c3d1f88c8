"""Files from the Hugging Face hub, from its cache first. huggingface_hub is needed."""

import contextlib
import threading
from pathlib import Path

from jaxdl.errors import InputError

PREFIX = "hf-hub:"
# Seconds to wait for a sign of the hub.
PATIENCE = 3.0


def fetch(repository: str, file: str) -> Path:
    """Where a file of a repository lies on this machine; downloaded if it does not yet.

    Raises:
      InputError: huggingface_hub is not installed, the repository or the file does not exist, or it is neither cached
        nor to be reached.
    """
    origin = f"{PREFIX}{repository}"
    try:
        from huggingface_hub import errors, hf_hub_download
    except ImportError:
        raise InputError(f"{origin}: to load from the hub run: pip install 'jaxdl[hub]'") from None
    try:
        try:
            return Path(hf_hub_download(repository, file, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            if not _reachable():  # hf_hub_download would try again for half a minute
                raise
            return Path(hf_hub_download(repository, file))
    except errors.HFValidationError:
        raise InputError(
            f"{origin} is not OWNER/REPO; an example is {PREFIX}timm/tf_efficientnet_b0.ns_jft_in1k"
        ) from None
    except errors.LocalEntryNotFoundError:
        raise InputError(
            f"{origin}: {file} is not in the cache, and the hub cannot be reached; go online once"
        ) from None
    except (errors.RepositoryNotFoundError, errors.EntryNotFoundError, errors.RevisionNotFoundError):
        raise InputError(f"{origin}: there is no such repository, or it has no {file}, or it is private") from None
    except (errors.HfHubHTTPError, OSError) as error:
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{origin}: {file} cannot be fetched ({reason[0] if reason else type(error).__name__})"
        ) from None


def _reachable() -> bool:
    """Whether the hub answers within PATIENCE; in a thread, as looking up a name has no time limit."""
    from huggingface_hub import constants, get_session

    answers = []

    def ask() -> None:
        with contextlib.suppress(Exception):  # the two HTTP libraries that the package has used have their own errors
            answers.append(get_session().head(constants.ENDPOINT, timeout=PATIENCE))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return len(answers) > 0
