"""Kinds of encoders: which a process has, and how it finds the class of one by its name.

A class is code, and a name in the database or in an artifact is only data: such a name is looked up among the classes that somebody
with a say in this process has named, and nothing else is ever imported. These are our own kinds, those that the program registers
(`register_kind`), those of the setting BTC_ASSETS_ENCODERS, and those that installed packages declare as entry points. Without PyTorch
this module works as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np

from btc_assets.domain.errors import UserError
from btc_assets.domain.printable import printable
from btc_assets.domain.settings import CLASS_PATH, KIND, Settings
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.encoders.options import FitOptions
from btc_assets.signals.encoders.torch_extra import calm_threads, explain_missing
from btc_assets.signals.encoders.windows import TrainingWindows

GROUP = "btc_assets.encoders"
"""The group of entry points in which a package declares its encoders: `kind = "package.module:Class"`."""

OURS = ("rocket-pca", "tcn")
"""The kinds of this package; the first is the default."""


class EncoderKind(Protocol):
    """What a class must have to be a kind of encoder. It needs neither PyTorch nor anything else of this package.

    Attributes:
        kind: its name, at most 24 lower-case letters, digits and single dashes, the first one a letter.
    """

    kind: ClassVar[str]

    @classmethod
    def fit(cls, windows: TrainingWindows, options: FitOptions) -> Self:
        """An encoder that learned from these windows and from nothing else, and makes vectors of `options.dim` dimensions.

        With the same `options.seed` it should be the same on every run.
        """

    @classmethod
    def restore(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """The encoder whose `arrays` these are."""

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Everything that `embed` needs, as arrays of numbers by name. They are the artifact, and their hash is the model's id."""

    def embed(self, bars: np.ndarray, features: np.ndarray) -> np.ndarray:
        """A finite vector [n, dim] of any length but 0 for bars [n, steps, channels] and features [n, features], float32.

        Rows must not depend on each other. The vectors are scaled to length one afterwards.
        """


MEMBERS = ("fit", "restore", "arrays", "embed")

_registered: dict[str, type[EncoderKind]] = {}

Class = TypeVar("Class", bound=type[Any])


class MissingKind(UserError):
    """A process lacks a kind of encoder, or what it needs. Whatever does not need the vectors goes on without it."""


def register_kind(encoder: Class) -> Class:
    """Make a class a kind of encoder, in this process; usable as a decorator.

    Args:
        encoder: has what `EncoderKind` describes.

    Returns:
        The class.

    Raises:
        UserError: it lacks something, or its name is taken.
    """
    where = _location(encoder)
    checked = _require_protocol(encoder, where)
    other = _registered.get(checked.kind)
    if other is not None and _location(other) != where:
        raise UserError(f"The kind {checked.kind!r} of {where} is taken by {_location(other)}: give it another name.")
    _registered[checked.kind] = checked  # again, if a notebook defines its class again
    return encoder


@dataclass(frozen=True)
class Kinds:
    """The kinds of encoders that this process may use.

    Attributes:
        declared: classes as `package.module:Class` by kind, as the setting BTC_ASSETS_ENCODERS names them.
    """

    declared: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Kinds:
        """The kinds of a process with these settings."""
        return cls(settings.encoder_classes)

    def names(self) -> list[str]:
        """All kinds by name, ours first."""
        return [*OURS, *sorted({*_registered, *self.declared, *entry_points(group=GROUP).names})]

    def with_class(self, text: str) -> tuple[Kinds, str]:
        """What a person chose: a kind by its name, or any class as `package.module:Class`, which is imported.

        Returns:
            These kinds, with that class, and the name of the kind.

        Raises:
            UserError: there is no such kind or class, or the class is no kind of encoder.
        """
        if not re.fullmatch(CLASS_PATH, text):
            self.require(text)
            return self, text
        calm_threads()
        kind = _import(text, text).kind
        return Kinds({**self.declared, kind: text}), kind

    def require(self, kind: str) -> None:
        """Raise a `UserError` if this process lacks a kind or a package that it needs."""
        calm_threads()
        if kind in OURS:
            missing = explain_missing("torch", "safetensors")
        else:
            self.find(kind)
            missing = explain_missing("safetensors")
        if missing:
            raise MissingKind(missing)

    def find(self, kind: str) -> type[EncoderKind]:
        """The class of a kind that is not ours.

        Raises:
            MissingKind: nobody named a class for it, or its module cannot be imported.
            UserError: the class is no kind of encoder, or bears another name.
        """
        if kind in _registered and kind not in self.declared:
            return _registered[kind]
        where = self._declaration(kind)
        if where is None:
            raise MissingKind(
                f"There is no encoder of the kind {kind!r}: choose one of {', '.join(self.names())}, or declare its class in "
                "BTC_ASSETS_ENCODERS."
            )
        found = _import(where, where)
        if found.kind != kind:
            raise UserError(f"The encoder {where} is declared as {kind!r} and calls itself {found.kind!r}: let both be the same.")
        return found

    def describe(self, kind: str) -> dict[str, str]:
        """What the table of models tells people of a kind that is not ours: `class`, and `package` with its version if one declares it."""
        if kind in OURS:
            return {}
        where = _location(self.find(kind))
        packages = [_package(point) for point in entry_points(group=GROUP, name=kind) if point.value == where]
        return {"class": where, **({"package": packages[0]} if packages else {})}

    def explain_lack(self, model: Model) -> str | None:
        """Which model a process cannot use, of which kind it is, and what to install; None if it has that kind.

        The class is not imported for that, so a module that fails to import is found by `find` only.
        """
        if model.kind in OURS:
            missing = explain_missing("torch", "safetensors")
        elif model.kind in _registered or self._is_installed(model.kind):
            missing = explain_missing("safetensors")
        else:
            missing = f"install {_provider(model)} here"
        if missing is None:
            return None
        return f"{model.model_id} does not embed, because this process lacks its kind {printable(model.kind)}: {missing.rstrip('.')}."

    def _is_installed(self, kind: str) -> bool:
        try:
            where = self._declaration(kind)
        except UserError:
            return True  # `find` says what is wrong with it
        return where is not None and find_spec(where.partition(":")[0].partition(".")[0]) is not None

    def _declaration(self, kind: str) -> str | None:
        """`package.module:Class` of a kind, by the setting or else by an installed package; None if neither names it."""
        if kind in self.declared:
            return self.declared[kind]
        found = {point.value: _package(point) for point in entry_points(group=GROUP, name=kind)}
        if len(found) > 1:
            both = " and ".join(f"{value} of {package}" for value, package in found.items())
            raise UserError(f"Several packages declare the kind {kind!r}: {both}; uninstall one, or name one in BTC_ASSETS_ENCODERS.")
        return next(iter(found), None)


def _location(encoder: type) -> str:
    return f"{encoder.__module__}:{encoder.__qualname__}"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _provider(model: Model) -> str:
    """What a person has to install for a model, as far as the table of models tells it."""
    where, package = (str(model.metrics.get(name, "")) for name in ("class", "package"))
    if not re.fullmatch(CLASS_PATH, where):
        return "the package that provides it"
    setting = f"set BTC_ASSETS_ENCODERS={printable(model.kind)}={where}"
    if package and package.isprintable() and len(package) < 100:
        return f"{package.split()[0]} ({where})"
    return f"the module of {where}, and {setting},"


def _import(where: str, name: str) -> type[EncoderKind]:
    """Import a class that somebody named as `package.module:Class`."""
    module, _, attribute = where.partition(":")
    try:
        found: object = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise UserError(f"The module {module} has no class {attribute}: correct the name of the encoder {name} ({error}).") from error
    except UserError:
        raise
    except Exception as error:  # a module may do anything while it is imported
        raise MissingKind(
            f"The encoder {name} cannot be imported ({type(error).__name__}: {printable(str(error))}): install its package here, or correct "
            "the name."
        ) from error
    return _require_protocol(found, where)


def _require_protocol(found: object, where: str) -> type[EncoderKind]:
    if not isinstance(found, type):
        raise UserError(f"{where} is no class, so it is no kind of encoder: name a class (docs/signals.md#encoders-of-your-own).")
    missing = [f"{name}()" for name in MEMBERS if not callable(getattr(found, name, None))]
    kind = getattr(found, "kind", None)
    if not isinstance(kind, str):
        missing.append("a name `kind`")
    if missing:
        raise UserError(f"{where} is no kind of encoder, because it lacks {', '.join(missing)}: see docs/signals.md#encoders-of-your-own.")
    if not re.fullmatch(KIND, str(kind)) or kind in OURS:
        raise UserError(
            f"The name {kind!r} of the encoder {where} cannot be a kind: take up to 24 lower-case letters, digits and single "
            f"dashes, the first one a letter, and neither {' nor '.join(OURS)}."
        )
    return found
