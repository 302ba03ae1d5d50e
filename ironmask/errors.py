"""Every error that ironmask raises on purpose.

::

    IronmaskError
    ├── ParameterError          a setting that cannot be used (also a ValueError)
    ├── RiskError               a setting that is unsafe, and was not taken by name
    ├── ReasonedError           an error about one input; carries a reason code
    │   ├── TemplateError       an embedding that cannot become a template (also a ValueError)
    │   └── ImageError          one image that cannot be used
    ├── EncodingError           helper bytes that do not match their declared encoding
    ├── ProtectionError         a finished row that does not verify; nothing was returned
    ├── TamperedError           a row whose helper does not authenticate
    ├── KeyStoreError
    │   ├── KeyNotFoundError    no keyset file, or no such generation in it
    │   ├── KeyFileError        a keyset file that is damaged or readable by others
    │   └── WrongKeyError       a key that belongs to another table or generation
    ├── ModelError
    │   ├── ModelNotFoundError  no such pack or folder
    │   ├── ModelDigestError    a model file that differs from its pinned digest
    │   ├── ModelDownloadError  a source that could not be reached or gave something else
    │   └── ProviderError       an execution provider that is not active
    ├── ProtocolError           comparisons that cannot be evaluated (also a ValueError)
    ├── SourceError             inputs that do not exist or cannot be understood
    │   └── NothingToDoError    no input is left that a run could take
    ├── StorageError            a store that refused or failed
    ├── WorkerError             a worker that died or could not be reached
    └── TableError              a destination that cannot be used
        ├── SubjectError        it holds no template of a subject, or several
        ├── MismatchError       it was made with other parameters, model or keys
        ├── BusyError           another run holds it
        └── CountError          the outcome counts of a run do not add up

Each message says what is wrong, where, and what to do. None of them carries an embedding, a
codeword, a helper or a key.
"""

from __future__ import annotations


class IronmaskError(Exception):
    """Base of all deliberate errors."""


class ParameterError(IronmaskError, ValueError):
    """A setting that cannot be used."""


class RiskError(IronmaskError):
    """A setting that is unsafe, and that nobody took the risk of by name."""


class ReasonedError(IronmaskError):
    """An error about one input; `reason` is a reason code's value."""

    def __init__(self, reason: str, message: str) -> None:
        # Both go to the base class, so that the error survives a trip between processes.
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class TemplateError(ReasonedError, ValueError):
    """An embedding that cannot become a template."""


class EncodingError(IronmaskError):
    """Helper bytes that do not match their declared encoding."""


class ProtectionError(IronmaskError):
    """A finished row that does not verify."""


class ImageError(ReasonedError):
    """One image that cannot be used."""


class TamperedError(IronmaskError):
    """A row whose helper does not authenticate."""


class KeyStoreError(IronmaskError):
    """A problem with keys."""


class KeyNotFoundError(KeyStoreError):
    """No keyset file, or no such generation in it."""


class KeyFileError(KeyStoreError):
    """A keyset file that is damaged or that other users may read."""


class WrongKeyError(KeyStoreError):
    """A key that belongs to another table or generation."""


class ModelError(IronmaskError):
    """A problem with model files."""


class ModelNotFoundError(ModelError):
    """No such pack or folder."""


class ModelDigestError(ModelError):
    """A model file that differs from its pinned digest."""


class ModelDownloadError(ModelError):
    """A model source that could not be reached, or gave something else."""


class ProviderError(ModelError):
    """An execution provider that is not active."""


class SourceError(IronmaskError):
    """Inputs that do not exist or cannot be understood."""


class NothingToDoError(SourceError):
    """No input is left that a run could take."""


class WorkerError(IronmaskError):
    """A worker that died or could not be reached."""


class StorageError(IronmaskError):
    """A store that refused or failed."""


class TableError(IronmaskError):
    """A destination that cannot be used."""


class SubjectError(TableError):
    """A subject with no template, or with more than one; `reason` is a reason code's value."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class MismatchError(TableError):
    """A destination made with other parameters, another model or other keys."""


class BusyError(TableError):
    """Another run holds the destination."""


class CountError(TableError):
    """The outcome counts of a run do not add up."""


class ProtocolError(IronmaskError, ValueError):
    """Comparisons, labels or scores that cannot be evaluated."""
