"""What a user may choose, in parts that requests share, and a request from its flat names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ironmask.errors import ParameterError

T = TypeVar("T")


@dataclass(frozen=True)
class TemplateSettings:
    """How templates are made; None: the default, or as the live templates were made.

    preset: a name of `ironmask.PRESETS`; alpha, tolerance, code_width and structure override it.
    filling: share of noise in the directions that embeddings leave empty. shard_size: inputs in one
    unit of work. agreement: the false match rate that sets how alike the faces of one subject must
    be; 0 for no such test.
    """

    preset: str | None = None
    alpha: int | None = None
    tolerance: int | None = None
    code_width: int | None = None
    structure: str | None = None
    encoding: str | None = None
    centring: str | None = None
    filling: float | None = None
    shard_size: int | None = None
    agreement: float | None = None

    def given(self, *names: str) -> dict[str, Any]:
        """Those of some settings that were chosen."""
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class Goal:
    """A false match rate by which parameters are chosen; None where they are named. photos: of a
    person, typically; 1 by default. floor_bits: the least against guessing; 80 by default.
    """

    fmr: float | None = None
    photos: int | None = None
    floor_bits: float | None = None


@dataclass(frozen=True)
class Inputs:
    """Which inputs of a source are taken. kind: folder, manifest, embeddings, or auto.

    allow_roots: folders and prefixes that inputs may lie in, beside that of the source. retry:
    reasons; only inputs that failed before for one of them are taken.
    """

    kind: str = "auto"
    allow_roots: tuple[str, ...] = ()
    retry: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kept:
    """What a table keeps. vault: the embeddings as well, encrypted. pseudonymous: subject ids and
    addresses keyed. plaintext_helpers: helpers unencrypted, for research alone.
    """

    plaintext_helpers: bool = False
    vault: bool = False
    pseudonymous: bool = False


@dataclass(frozen=True)
class KeyFiles:
    """Paths of keyset files; None: in their usual places. vault_keys: that of the table's vault."""

    keys: str | None = None
    vault_keys: str | None = None


@dataclass(frozen=True)
class Risk:
    """What a stolen row would be worth. calibration: a Parquet of embeddings of the same model, to
    measure that on. accepted_risk: what is taken on by name.
    """

    calibration: str | None = None
    accepted_risk: str | None = None


def assembled(kind: type[T], flat: Mapping[str, Any]) -> T:
    """A request from flat names: each of its parts takes those that are its own.

    A part may also be given whole, as a mapping or ready-made, under its own name. Lists become
    tuples. Raises `ParameterError` for a name that there is not, for one that is missing or comes
    twice, and for a value of another type.
    """
    given = dict(flat)
    values = {own.name: _value(own, given) for own in _fields(kind) if _is_given(own, given)}
    if given:
        raise ParameterError(
            f"no option {', '.join(sorted(given))} here; the options are "
            f"{', '.join(sorted(names(kind)))}"
        )
    missing = [own.name for own in _fields(kind) if own.name not in values and _is_required(own)]
    if missing:
        raise ParameterError(f"{' and '.join(missing)} must be given")
    return kind(**_typed(kind, values))


def names(kind: type) -> set[str]:
    """The flat names of a request: its own plain fields, and those of its parts."""
    found: set[str] = set()
    for own in _fields(kind):
        part = _part(own)
        found |= {inner.name for inner in fields(part)} if part else {own.name}
    return found


def _fields(kind: Any) -> Iterator[Field[Any]]:
    yield from fields(kind)


def _part(own: Field[Any]) -> Any:
    """The class of a part; None for a plain field."""
    made = own.default_factory
    return made if isinstance(made, type) and is_dataclass(made) else None


def _is_required(own: Field[Any]) -> bool:
    return own.default is MISSING and own.default_factory is MISSING


def _is_given(own: Field[Any], given: Mapping[str, Any]) -> bool:
    return bool(_part(own)) or own.name in given


def _value(own: Field[Any], given: dict[str, Any]) -> Any:
    """What a field gets; its names are taken out of what is given."""
    part = _part(own)
    if part is None:
        return given.pop(own.name)
    known = [f.name for f in fields(part)]
    inner = {name: given.pop(name) for name in known if name in given}
    whole = given.pop(own.name, {})
    if isinstance(whole, part):
        if inner:
            raise ParameterError(f"{own.name} is given whole, and {', '.join(inner)} beside it")
        return whole
    if not isinstance(whole, Mapping):
        raise ParameterError(f"{own.name} has parts: give a mapping of {', '.join(known)}")
    if unknown := sorted(set(whole) - set(known)):
        raise ParameterError(
            f"no option {', '.join(unknown)} in {own.name}; it has {', '.join(known)}"
        )
    if twice := sorted(set(whole) & set(inner)):
        raise ParameterError(f"{', '.join(twice)} is given twice: in {own.name}, and beside it")
    return part(**_typed(part, {**whole, **inner}))


def _typed(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the fields of a class, all of their types; lists as tuples.

    A text is no list of texts: its letters would be taken one by one.
    """
    hints = get_type_hints(kind)
    found = {name: _frozen(value) for name, value in given.items()}
    for own in fields(kind):
        if own.name in found and not _fits(found[own.name], hints[own.name]):
            kinds = str(own.type).replace("tuple", "list").replace(", ...", "")
            raise ParameterError(
                f"{own.name} is of type {type(given[own.name]).__name__}: it must be {kinds}"
            )
    return found


def _fits(value: Any, hint: Any) -> bool:
    some, origin = get_args(hint), get_origin(hint)
    if origin is UnionType:
        return any(_fits(value, one) for one in some)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, some[0]) for one in value)
    if origin is Literal:
        # Whoever has the field names the choices.
        return isinstance(value, str)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float if hint is float else hint)


def _frozen(value: Any) -> Any:
    is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple)
    return tuple(value) if is_list else value
