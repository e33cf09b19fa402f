"""A package of somebody else's with encoders, as it would be installed: modules on sys.path, and entry points that declare them."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

NAME = "their_encoders"
MEAN = f"{NAME}.mean:MeanSpread"

_MODULES = {
    "__init__.py": "",
    # NumPy alone.
    "mean.py": '''
import numpy as np

class MeanSpread:
    """Mean and spread of each channel, and the features, standardized and turned at random."""

    kind = "mean-spread"

    def __init__(self, centre, turn):
        self.centre, self.turn = centre, turn

    @staticmethod
    def _describe(bars, features):
        return np.concatenate([bars.mean(1), bars.std(1), features], axis=1)

    @classmethod
    def fit(cls, windows, options):
        described = cls._describe(windows.bars, windows.features)
        turn = np.random.default_rng(options.seed).normal(size=(described.shape[1], options.dim))
        return cls(described.mean(0), turn / (described.std(0)[:, None] + 1e-9))

    @classmethod
    def restore(cls, arrays):
        return cls(arrays["centre"], arrays["turn"])

    def arrays(self):
        return {"centre": self.centre, "turn": self.turn}

    def embed(self, bars, features):
        return (self._describe(bars, features) - self.centre) @ self.turn
''',
    "linear.py": '''
import torch

class Linear(torch.nn.Module):
    """A random layer of PyTorch."""

    kind = "their-linear"

    def __init__(self, inputs, dim):
        super().__init__()
        self.layer = torch.nn.Linear(inputs, dim)

    @classmethod
    def fit(cls, windows, options):
        with torch.random.fork_rng():
            torch.manual_seed(options.seed)
            return cls(windows.bars[0].size, options.dim)

    @classmethod
    def restore(cls, arrays):
        dim, inputs = arrays["layer.weight"].shape
        made = cls(inputs, dim)
        made.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()})
        return made

    def arrays(self):
        return {name: tensor.numpy() for name, tensor in self.state_dict().items()}

    @torch.inference_mode()
    def embed(self, bars, features):
        return self.layer(torch.asinh(torch.from_numpy(bars)).flatten(1)).numpy()
''',
}


@dataclass
class EncoderPackage:
    """The package in a directory, which is on sys.path or is not."""

    directory: Path

    def write(self, module: str, text: str) -> None:
        (self.directory / NAME / module).write_text(text)

    def declare(self, *declarations: str, package: str = "their-encoders") -> None:
        """Declare kinds as entry points, `kind = package.module:Class` each."""
        information = self.directory / f"{package.replace('-', '_')}-1.2.dist-info"
        information.mkdir(exist_ok=True)
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
        (information / "entry_points.txt").write_text("\n".join(["[btc_assets.encoders]", *declarations, ""]))
        importlib.invalidate_caches()

    def install(self) -> None:
        """Make it importable, here and in child processes."""
        sys.path.insert(0, str(self.directory))
        os.environ["PYTHONPATH"] = os.pathsep.join([str(self.directory), os.environ.get("PYTHONPATH", "")])
        importlib.invalidate_caches()

    def remove(self) -> None:
        """The opposite, with everything that was imported of it."""
        while str(self.directory) in sys.path:
            sys.path.remove(str(self.directory))
        os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH", "").replace(f"{self.directory}{os.pathsep}", "")
        for name in [name for name in sys.modules if name.partition(".")[0] == NAME]:
            del sys.modules[name]
        importlib.invalidate_caches()


@pytest.fixture
def their_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EncoderPackage:
    """The package, installed, without entry points."""
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))
    monkeypatch.setattr(sys, "path", [*sys.path])
    package = EncoderPackage(tmp_path / "site")
    (package.directory / NAME).mkdir(parents=True)
    for module, text in _MODULES.items():
        package.write(module, text)
    package.remove()
    package.install()
    return package
