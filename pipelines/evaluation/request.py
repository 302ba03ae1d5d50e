"""What a user asks of an evaluation, and the evaluation that this describes."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from infra.models import packs
from infra.settings import Settings, StorageSettings
from infra.store.addresses import normalise
from ironmask.centring import Centring
from ironmask.errors import ModelNotFoundError, ParameterError, SourceError
from ironmask.helper import DEFAULT_ENCODING, encoding
from ironmask.params import PRESETS, Params, structure_for
from pipelines.evaluation import frozen
from pipelines.evaluation.frozen import Evaluation
from pipelines.evaluation.listed import refuse_comments
from pipelines.evaluation.protocol import ALL, is_listed, spread
from pipelines.evaluation.stored_templates import TemplateTraits, live
from pipelines.plan import labelled_faces, lists
from pipelines.ports import Store
from pipelines.setup import places, ports
from pipelines.setup.keys import refuse_other_keys
from pipelines.spec.template_job import DECLARED
from pipelines.spec.workplace import Workplace
from pipelines.table.layout import TABLE_PROTOCOL


@dataclass(frozen=True)
class Comparisons:
    """What is compared, each with each.

    settings: each as `N,ALPHA,TOLERANCE`, or with a structure behind it, or a preset's name.
    alphas: the same of the paper's width, with all tolerances up to `tolerance`. Without either,
    the presets are compared.
    """

    protocols: tuple[str, ...] = (ALL,)
    settings: tuple[str, ...] = ()
    alphas: tuple[int, ...] = ()
    tolerance: int = 4
    encodings: tuple[str, ...] = (DEFAULT_ENCODING,)
    centrings: tuple[str, ...] = (Centring.MEAN.value,)


@dataclass(frozen=True)
class EvaluateRequest:
    """An evaluation as a user asks for it.

    table: address of a table whose live templates are compared, as they are; its own settings
    then stand for `comparisons`. keys: its keyset file. model: what made the embeddings: a pack, or
    a name. exclude: a file with a name a line. groups: columns of labels. seed: hex.
    """

    source: str
    out: str
    table: str | None = None
    keys: str | None = None
    model: str | None = None
    comparisons: Comparisons = field(default_factory=Comparisons)
    exclude: str | None = None
    groups: tuple[str, ...] = ()
    seed: str | None = None
    workplace: Workplace = field(default_factory=Workplace)


def traits_of(
    request: EvaluateRequest, settings: Settings, storage: StorageSettings
) -> TemplateTraits:
    """The templates of the table that was asked for, once its keys are at hand.

    Raises `WrongKeyError` where these are other ones, `ParameterError` where more was asked for.
    """
    if request.model or request.comparisons != Comparisons():
        raise ParameterError(
            "--table compares the templates that are there: leave out --protocol, --setting, "
            "--alpha, --tolerance, --encoding, --centring and --model"
        )
    stored = places.existing(str(request.table), storage)
    path = places.keys_path(request.keys, settings, stored)
    tables = ports.shared_tables(stored.dest, storage.public(), path, stored.table_id)
    traits = live(tables, str(path))
    keys = ports.keys(path, tables.table_id, traits.issued.generation)
    refuse_other_keys(tables.dest, traits.key_id, keys)
    return traits


def asked(
    request: EvaluateRequest,
    source: str,
    out: str,
    store: Store,
    settings: Settings,
    traits: TemplateTraits | None,
) -> Evaluation:
    """The evaluation that a request describes. source, out: normalised.

    Raises `ParameterError`, `SourceError` and `ProtocolError` for what cannot be evaluated.
    """
    text = _text(normalise(request.exclude), store) if request.exclude else ""
    excluded = lists.names(text)
    loaded = labelled_faces.load(source, store, excluded, request.groups)
    if text:
        refuse_comments(str(request.exclude), loaded.labels, text)
    n, seed = loaded.vectors.shape[1], _seed(request.seed)
    common = {
        "source": source, "version": store.version(source), "out": out,
        "excluded": tuple(excluded), "groups": request.groups, "seed": seed, "n": n,
        "floor": frozen.floor(loaded, seed), "block": frozen.block_size(len(loaded.vectors)),
        "reading": frozen.READING,
    }  # fmt: skip
    if traits:
        params = traits.issued.params
        if params.n != n:
            raise SourceError(f"{source} holds embeddings of width {n}, the table's are {params.n}")
        return Evaluation(
            protocols=(TABLE_PROTOCOL,), listed=None, issued=traits.issued, alphas=(params.alpha,),
            tolerance=params.tolerance, encodings=(traits.encoding,), centrings=(traits.centring,),
            model=traits.model, **common,
        )  # fmt: skip
    wanted = request.comparisons
    for name in wanted.encodings:
        encoding(name)
    protocols, listed = _protocols(wanted.protocols, store)
    return Evaluation(
        protocols=protocols,
        listed=listed,
        issued=None,
        alphas=_alphas(wanted, n),
        tolerance=wanted.tolerance,
        encodings=tuple(dict.fromkeys(wanted.encodings)),
        centrings=tuple(dict.fromkeys(map(Centring.named, wanted.centrings))),
        model=_model(request.model or settings.model),
        structure=structure_for(n, n).value,
        named=_named(wanted, n),
        **common,
    )


def _alphas(wanted: Comparisons, n: int) -> tuple[int, ...]:
    for alpha in wanted.alphas:
        Params(n, alpha, 0)
    return tuple(sorted(set(wanted.alphas)))


def _named(wanted: Comparisons, n: int) -> tuple[str, ...]:
    """The settings that were named, by full names; the presets, where nothing was."""
    if wanted.alphas and wanted.settings:
        raise ParameterError("--setting names settings whole: leave --alpha and --tolerance out")
    names = wanted.settings or (() if wanted.alphas else tuple(PRESETS))
    return tuple(dict.fromkeys(frozen.setting_name(frozen.named_setting(s, n)) for s in names))


def _model(name: str | None) -> str:
    """The digest of a pack that is at hand, else what is said."""
    if name is None:
        return "not told"
    try:
        pack = packs.find_pack(name)
    except ModelNotFoundError:
        return DECLARED + name
    return f"{pack.name}, {pack.fingerprint}"


def _seed(given: str | None) -> str:
    seed = given or secrets.token_hex(32)
    try:
        usable = len(bytes.fromhex(seed)) == 32
    except ValueError:
        usable = False
    if not usable:
        raise ParameterError("a seed has 64 hexadecimal digits")
    return seed


def _protocols(names: tuple[str, ...], store: Store) -> tuple[tuple[str, ...], str | None]:
    """The protocols by name, and the text of the one that is a file."""
    every = spread(names)
    files = [name for name in every if is_listed(name)]
    if not files:
        return every, None
    if len(files) > 1:
        raise ParameterError("two protocols are files: evaluate them one after the other")
    address = normalise(files[0])
    if not store.exists(address):
        raise ParameterError(
            f"unknown protocol {files[0]!r}: it is `all`, `first:K`, or a file of pairs or roles, "
            "and there is no such file"
        )
    return tuple(address if name in files else name for name in every), _text(address, store)


def _text(address: str, store: Store) -> str:
    return lists.decoded(address, store.read(address))
