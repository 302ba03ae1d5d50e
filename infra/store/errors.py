"""What stores raise beside `OSError`. It loads neither a client nor a file system."""

from __future__ import annotations

from ironmask.errors import StorageError
from pipelines.spec.outcomes import Reason


class MissingObjectError(StorageError, FileNotFoundError):
    """An object or a bucket that does not exist."""

    def __str__(self) -> str:
        return str(self.args[0])


class TooLargeError(OSError):
    """An object longer than the caller accepts."""

    reason = Reason.TOO_LARGE


class NotRegularError(OSError):
    """A folder, pipe, socket, device or kernel file where a regular file was wanted."""

    reason = Reason.NOT_A_REGULAR_FILE


class RefusedError(PermissionError):
    """A store's decision about one object or bucket. Others may be open."""
