"""What answers verifications again and again: keys, sealed tables and models that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from threading import RLock
from typing import Any, Final, Self, TypeVar

import numpy as np

from infra.keys.key_file import KeyFile
from infra.settings import load as load_settings
from infra.store.addresses import is_text
from ironmask import candidates
from ironmask.errors import ImageError, IronmaskError, ParameterError, SubjectError, TemplateError
from pipelines.ports import F32, Store
from pipelines.setup import places, ports
from pipelines.spec.outcomes import Reason
from pipelines.table import read, run_records
from pipelines.table.data_files import batched
from pipelines.table.schemas import TABLES
from pipelines.verification import probe
from pipelines.verification.images import Image, contents, contents_or_faults, name_of
from pipelines.verification.kept import Kept
from pipelines.verification.models import LoadedModel, Models
from pipelines.verification.probe import OpenedRow, Verdict

T = TypeVar("T")

# Rows that are held at once: about 10 MiB at n = 512.
_TOGETHER: Final = 32
_Read = Callable[[Store, int], Iterator[tuple[str, bytes | OSError]]]


@dataclass(frozen=True)
class _Found:
    """A subject's live row, opened, and what it was opened with."""

    row: dict[str, Any] = field(repr=False)
    opened: OpenedRow = field(repr=False)
    kept: Kept = field(repr=False)


class Verifier:
    """Answers from what the seal of a destination vouched for when it was last looked at.

    It opens settings, keys and the sealed table once, and a model at the first image. Many threads
    may ask at once. A context manager: `close` lets keys and models go. Answers are yes or no.

    It holds the list of the files of templates, some 200 bytes a file, and finds a subject's file
    in it. A refresh reads the entries of the logs since then. Keys go once a generation has come or
    gone. An answer that was under way at a refresh is made anew from what is live now.

    >>> with Verifier("table/") as verifier:  # doctest: +SKIP
    ...     verifier.verify("Ada", ["probe.jpg"])
    """

    def __init__(self, dest: str, keys: str | None = None, model: str | None = None) -> None:
        """dest: address of a table. keys: its keyset file; by default `IRONMASK_KEYS`, else the one
        in the user's configuration folder. model: a pack's name or folder; by default
        `IRONMASK_MODEL`, else the pack on this machine that a row's fingerprint names.

        Raises `TableError` where there is no table, or where the seal or a log was changed,
        `KeyStoreError` without its keys, `ParameterError` for a setting that cannot be used.
        """
        settings, storage = load_settings()
        self.store = ports.open_store(storage)
        stored = places.existing(dest, storage)
        self._file = KeyFile.open(places.keys_path(keys, settings, stored), stored.table_id)
        self._tables = ports.sealed(stored, self.store, self._file)
        self._models = Models(model or settings.model)
        # Over what is kept. Rows are read, and probes embedded and compared, outside of it.
        self._lock = RLock()
        self._kept: Kept | None = Kept(self._tables, self._file)
        self._tables.table("templates").settle()
        for name in TABLES:
            stored.table(name).let_go()
        for job in run_records.jobs(self._tables)[-1:]:
            candidates.patterns(job.params)

    def __repr__(self) -> str:
        return f"Verifier({self._tables.dest!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    @property
    def own(self) -> tuple[str, ...]:
        """The table and the keyset files of it and of its vault, which are never probes."""
        path = self._file.path
        return self._tables.dest, str(path), str(places.vault_keys_path(None, path))

    def close(self) -> None:
        """Let keys and models go; from then on nothing is answered."""
        with self._lock:
            self._kept = None
        self._models.close()

    def refresh(self) -> bool:
        """Look for a newer seal, by one request where there is none; tell whether there was one.

        Once it has returned, nothing is answered from what the older one vouched for. Raises
        `TableError` where the seal or a log was changed.
        """
        with self._lock:
            self._open_still()
        return self._tables.refresh()

    def verify(self, subject: str, images: Sequence[Image]) -> list[Verdict]:
        """Tell for each image, an address or a name and its bytes, whether it matches a subject.

        An image without a usable face has no answer, with a reason. Raises `SubjectError` where
        the subject has no template, or several, `ModelError` where the pack that enrolled it is not
        on this machine, `MismatchError` where another one was named, `StorageError` for an image
        that cannot be read, `TamperedError` for a row that was changed.
        """
        answer = partial(self._of_images, partial(contents, _several(images)))
        return self._answered(subject, self._open(subject), answer)

    def verify_embeddings(self, subject: str, embeddings: F32) -> list[bool]:
        """Tell for each probe embedding, (k, n) float32, whether it matches a subject's template.

        Raises as `verify` does, but for models, and `TemplateError` for vectors that cannot be
        probes.
        """
        vectors = _numbers(embeddings)
        found = self._open(subject)
        return self._answered(subject, found, lambda one: one.opened.matches(vectors))

    def verify_many(
        self, asked: Mapping[str, Sequence[Image]], *, home: str = ""
    ) -> dict[str, list[Verdict]]:
        """The same as `verify` for images of many subjects, whose rows are read together.

        A subject without a template, and an image that cannot be read, are answers with a reason.
        home: address of what lists the images: what another bucket refuses is such an answer, too.
        """

        def answer(images: Sequence[Image], found: _Found) -> list[Verdict]:
            read_images = partial(contents_or_faults, _several(images), home=home)
            return self._of_images(read_images, found)

        return self._each(asked, answer, lambda images: list(map(name_of, images)))

    def verify_embeddings_many(
        self, asked: Mapping[str, F32 | Sequence[F32]]
    ) -> dict[str, list[Verdict]]:
        """The same for probe embeddings, (n,) each; their places among a subject's name them.

        A vector that cannot be a probe is an answer with a reason.
        """

        def answer(vectors: F32 | Sequence[F32], found: _Found) -> list[Verdict]:
            return [_verdict_of(found.opened, str(at), vector) for at, vector in enumerate(vectors)]

        return self._each(asked, answer, lambda vectors: list(map(str, range(len(vectors)))))

    def generation(self, subject: str) -> int:
        """The generation of a subject's live template. Raises as `verify` does."""
        return self._answered(subject, self._open(subject), lambda one: int(one.row["generation"]))

    def _each(
        self,
        asked: Mapping[str, T],
        answer: Callable[[T, _Found], list[Verdict]],
        names: Callable[[T], list[str]],
    ) -> dict[str, list[Verdict]]:
        said: dict[str, list[Verdict]] = {}
        for some in batched(asked, _TOGETHER):
            found = self._open_all(some)
            for subject in some:
                probes = asked[subject]
                try:
                    said[subject] = self._answered(
                        subject, found.pop(subject), partial(answer, probes)
                    )
                except SubjectError as error:
                    said[subject] = probe.unanswered(names(probes), error.reason, str(error))
        return said

    def _answered(
        self, subject: str, found: _Found | SubjectError, answer: Callable[[_Found], T]
    ) -> T:
        """An answer from what is live, also where that changed while it was made."""
        while True:
            if isinstance(found, SubjectError):
                raise found
            try:
                said = answer(found)
            except IronmaskError:
                if self._is_current(found.kept):
                    raise
            else:
                if self._is_current(found.kept):
                    return said
            found = self._open(subject)

    def _of_images(self, read_images: _Read, found: _Found) -> list[Verdict]:
        pack = self._models.pack(found.row["model"])
        probe.check_model(found.row, pack)
        faces = found.kept.faces(found.row["run_id"])
        model = self._models.loaded(pack, faces)
        images = read_images(self.store, faces.max_bytes)
        return [_verdict(found.opened, model, name, content) for name, content in images]

    def _open(self, subject: str) -> _Found | SubjectError:
        return self._open_all([subject])[subject]

    def _open_all(self, subjects: Sequence[str]) -> dict[str, _Found | SubjectError]:
        """The live rows of some subjects, read together and decrypted once each."""
        for subject in subjects:
            if not (isinstance(subject, str) and is_text(subject)):
                raise ParameterError(f"{subject!r} is no subject's id: it is not UTF-8")
        while True:
            kept = self._current()
            stored = {subject: kept.stored(subject) for subject in subjects}
            rows = read.open_live_rows(self._tables, list(stored.values()), kept.generation)
            found = {subject: self._opened(rows[name], kept) for subject, name in stored.items()}
            if self._is_current(kept):
                return found

    def _opened(self, row: read.Row | SubjectError, kept: Kept) -> _Found | SubjectError:
        if isinstance(row, SubjectError):
            return row
        return _Found(row[0], probe.opened(self._file.table_id, *row), kept)

    def _current(self) -> Kept:
        """What is kept, made anew where something else is vouched for by now."""
        with self._lock:
            kept = self._open_still()
            if kept.renewals != self._tables.renewals:
                kept = self._kept = Kept(self._tables, self._file, kept)
            return kept

    def _is_current(self, kept: Kept) -> bool:
        with self._lock:
            self._open_still()
            return kept.renewals == self._tables.renewals

    def _open_still(self) -> Kept:
        if self._kept is None:
            raise ParameterError(f"{self!r} is closed: make another one")
        return self._kept


def _several(images: Sequence[Image]) -> Sequence[Image]:
    if isinstance(images, str):
        raise ParameterError("images are a list of addresses, also where there is one alone")
    return images


def _numbers(embeddings: object) -> F32:
    """What a caller gives as embeddings, as float32; numbers beyond it become infinite.

    Raises `TemplateError` for what is no array of numbers.
    """
    try:
        with np.errstate(over="ignore"):
            return np.asarray(embeddings, np.float32)
    except (TypeError, ValueError):
        raise TemplateError(Reason.WRONG_WIDTH, "embeddings are no array of numbers") from None


def _verdict_of(row: OpenedRow, name: str, embedding: object) -> Verdict:
    try:
        return row.verdict(name, _numbers(embedding))
    except TemplateError as error:
        return Verdict(name, None, error.reason, str(error))


def _verdict(row: OpenedRow, model: LoadedModel, name: str, content: bytes | OSError) -> Verdict:
    if isinstance(content, OSError):
        return Verdict(name, None, getattr(content, "reason", Reason.UNREADABLE), str(content))
    try:
        embedding = model.embed(content)
    except ImageError as error:
        return Verdict(name, None, error.reason, str(error))
    return row.verdict(name, embedding)
