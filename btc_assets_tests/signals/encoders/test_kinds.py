"""Kinds of encoders: how a process finds their classes, what it says of those that it lacks, and that data names no code to import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from btc_assets.domain.errors import UserError
from btc_assets.domain.settings import load_settings
from btc_assets.landing.zone import LandingZone
from btc_assets.signals.encoders import kinds as kinds_module
from btc_assets.signals.encoders.artifacts import compute_model_id, load_encoder, save_encoder
from btc_assets.signals.encoders.encoder import KINDS
from btc_assets.signals.encoders.fitting import fit_encoder
from btc_assets.signals.encoders.kinds import OURS, Kinds, MissingKind, register_kind
from btc_assets.signals.encoders.models import Model
from btc_assets.signals.encoders.options import FitOptions
from btc_assets_tests.support.encoder_package import MEAN, NAME, EncoderPackage
from btc_assets_tests.support.vectors import unregistered_model
from btc_assets_tests.support.windows import training_windows, windows

OPTIONS = FitOptions(dim=8)


@pytest.fixture(autouse=True)
def registrations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kinds_module, "_registered", {})
    yield


def test_our_kinds_are_those_that_the_code_builds() -> None:
    assert tuple(KINDS) == OURS


@pytest.mark.parametrize("kind", ["mean-spread", "their-linear"])
def test_a_declared_kind_is_trained_stored_and_loaded_by_its_name(kind: str, their_encoders: EncoderPackage, tmp_path: Path) -> None:
    their_encoders.declare(f"mean-spread = {MEAN}", f"their-linear = {NAME}.linear:Linear")
    assert Kinds().names() == [*OURS, "mean-spread", "their-linear"]
    zone = LandingZone(tmp_path.as_uri())
    encoder = fit_encoder(kind, training_windows(60), OPTIONS)
    name = save_encoder(encoder, zone)
    assert name.startswith(f"{kind}-") and compute_model_id(fit_encoder(kind, training_windows(60), OPTIONS)) == name
    bars, features = windows(9, seed=1)
    vectors = load_encoder(name, zone).embed(bars, features)
    assert vectors.dtype == np.float32 and np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-6)
    assert np.array_equal(vectors, encoder.embed(bars, features))


def test_a_kind_is_found_by_the_setting_and_by_registration(their_encoders: EncoderPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_ENCODERS", f" mean-spread={MEAN} , ")
    assert Kinds.of(load_settings()).find("mean-spread").__name__ == "MeanSpread"
    monkeypatch.setenv("BTC_ASSETS_ENCODERS", "")
    with pytest.raises(MissingKind, match="no encoder of the kind 'mean-spread'"):
        Kinds.of(load_settings()).find("mean-spread")
    from their_encoders.mean import MeanSpread  # type: ignore[import-not-found]

    assert register_kind(MeanSpread) is MeanSpread
    assert Kinds().find("mean-spread") is MeanSpread


@pytest.mark.parametrize("text", ["mean-spread", f"Mean={MEAN}", "mean-spread=their_encoders", f"mean-spread={MEAN};import os"])
def test_a_setting_that_names_no_class_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BTC_ASSETS_ENCODERS", text)
    with pytest.raises(UserError, match=r"^BTC_ASSETS_ENCODERS is wrong: .* is no kind=package.module:Class\.$"):
        load_settings()


def test_a_person_may_name_any_class(their_encoders: EncoderPackage) -> None:
    kinds, name = Kinds().with_class(MEAN)
    assert name == "mean-spread" and fit_encoder(name, training_windows(60), OPTIONS, kinds=kinds).kind == "mean-spread"
    assert kinds.describe(name) == {"class": MEAN}
    their_encoders.declare(f"mean-spread = {MEAN}")
    assert Kinds().describe(name) == {"class": MEAN, "package": "their-encoders 1.2"}
    assert Kinds().with_class("mean-spread") == (Kinds(), "mean-spread")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lstm", "There is no encoder of the kind 'lstm': choose one of rocket-pca, tcn, or declare its class in BTC_ASSETS_ENCODERS."),
        ("absent_package.a:B", r"The encoder absent_package.a:B cannot be imported \(ModuleNotFoundError: .*\): install its package here"),
        ("their_encoders.mean:Median", "The module their_encoders.mean has no class Median"),
        ("their_encoders.mean:np", "is no class"),
        ("their_encoders.broken:A", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        (
            "their_encoders.odd:Lacks",
            r"their_encoders.odd:Lacks is no kind of encoder, because it lacks restore\(\), embed\(\), a name `kind`",
        ),
        ("their_encoders.odd:Ours", "The name 'tcn' of the encoder their_encoders.odd:Ours cannot be a kind"),
        ("their_encoders.odd:Name", r"The name 'a\\nb' of the encoder"),
    ],
)
def test_a_class_that_is_no_kind_of_encoder_is_refused_in_one_sentence(text: str, sentence: str, their_encoders: EncoderPackage) -> None:
    their_encoders.write("broken.py", "1 / 0")
    their_encoders.write(
        "odd.py",
        "from their_encoders.mean import MeanSpread\nclass Lacks:\n    def fit(self): ...\n    def arrays(self): ...\n"
        "class Ours(MeanSpread):\n    kind = 'tcn'\nclass Name(MeanSpread):\n    kind = 'a\\nb'\n",
    )
    with pytest.raises(UserError, match=sentence) as raised:
        Kinds().with_class(text)
    assert str(raised.value).count(". ") <= 0


def test_a_name_that_two_packages_or_a_class_and_its_declaration_disagree_on_is_refused(their_encoders: EncoderPackage) -> None:
    their_encoders.declare(f"other-name = {MEAN}")
    with pytest.raises(UserError, match="is declared as 'other-name' and calls itself 'mean-spread'"):
        Kinds().find("other-name")
    their_encoders.declare(f"mean-spread = {MEAN}")
    their_encoders.declare(f"mean-spread = {NAME}.linear:Linear", package="rival")
    with pytest.raises(UserError, match=r"Several packages declare the kind 'mean-spread': .*their-encoders 1.2.*; uninstall one"):
        Kinds().find("mean-spread")
    assert Kinds({"mean-spread": MEAN}).find("mean-spread").__name__ == "MeanSpread"


BREACHES = {
    "restored": (
        "def restore(cls, arrays):\n        return cls(arrays['centre'] + 1, arrays['turn'])",
        "makes other vectors once it was restored",
    ),
    "together": (
        "def embed(self, bars, features):\n        return self._describe(bars, features) @ self.turn + len(bars)",
        "of a slice alone than",
    ),
    "dimension": (
        "def embed(self, bars, features):\n        return self._describe(bars, features)",
        r"of shape \(16, 10\) .* of shape \(16, 8\)",
    ),
    "list": ("def embed(self, bars, features):\n        return [[1.0] * 8] * len(bars)", "returned list of shape None"),
    "nan": (
        "def embed(self, bars, features):\n        return np.full((len(bars), 8), np.nan)",
        "NaN, infinite or zero vectors for 16 of 16",
    ),
    "zero": ("def embed(self, bars, features):\n        return np.zeros((len(bars), 8))", "NaN, infinite or zero vectors for 16 of 16"),
    "objects": (
        "def arrays(self):\n        return {'centre': self.centre.astype(object)}",
        r"no NumPy array of numbers, such as \['centre'\]",
    ),
    "none": ("def arrays(self):\n        return None", "returns a NoneType"),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_an_encoder_that_breaks_its_promises_is_refused_when_it_is_trained(breach: str, their_encoders: EncoderPackage) -> None:
    method, sentence = BREACHES[breach]
    decorator = "    @classmethod\n" if breach == "restored" else ""
    their_encoders.write(
        "bad.py",
        f"import numpy as np\nfrom their_encoders.mean import MeanSpread\nclass Bad(MeanSpread):\n    kind = 'bad'\n{decorator}    {method}\n",
    )
    kinds, name = Kinds().with_class("their_encoders.bad:Bad")
    with pytest.raises(UserError, match=sentence):
        fit_encoder(name, training_windows(60), OPTIONS, kinds=kinds)


def test_a_row_of_the_database_makes_no_process_import_anything(their_encoders: EncoderPackage, tmp_path: Path) -> None:
    kinds, name = Kinds().with_class(MEAN)
    zone = LandingZone(tmp_path.as_uri())
    model_id = save_encoder(fit_encoder(name, training_windows(60), OPTIONS, kinds=kinds), zone)  # its artifact lies there as well
    their_encoders.remove()
    their_encoders.install()
    lack = Kinds().explain_lack(_model(model_id, {"class": MEAN, "package": "their-encoders 1.2"}))
    assert lack == f"{model_id} does not embed, because this process lacks its kind mean-spread: install their-encoders ({MEAN}) here."
    for model in (model_id, f"{MEAN}-0123456789abcdef", f"{NAME}-0123456789abcdef", "their_encoders.mean-0123456789abcdef"):
        with pytest.raises(UserError):
            load_encoder(model, zone)
    assert not [name for name in sys.modules if name.startswith(NAME)]


@pytest.mark.parametrize("where", ["os; rm -rf /", "\x1b[31m", 5, None])
def test_what_the_database_says_of_a_class_is_shown_only_if_it_is_a_name(where: object) -> None:
    lack = Kinds().explain_lack(_model("mean-spread-0123456789abcdef", {"class": where, "package": where}))
    assert lack == (
        "mean-spread-0123456789abcdef does not embed, because this process lacks its kind mean-spread: install the package that provides it here."
    )


def test_a_kind_of_ours_is_lacked_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model("tcn-0123456789abcdef", {})
    assert Kinds().explain_lack(model) is None
    monkeypatch.setattr("btc_assets.signals.encoders.torch_extra.find_spec", lambda name: None)
    assert Kinds().explain_lack(model) == (
        "tcn-0123456789abcdef does not embed, because this process lacks its kind tcn: Encoders need torch and safetensors, which this Python "
        "lacks: pip install 'btc-assets[torch]'."
    )


def _model(model_id: str, metrics: dict[str, object]) -> Model:
    return unregistered_model(model_id, kind=model_id.rpartition("-")[0], metrics=metrics)
