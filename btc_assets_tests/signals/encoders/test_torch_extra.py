"""PyTorch is optional: only encoders need it, and they say what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

from btc_assets.domain.errors import UserError
from btc_assets.signals.encoders import torch_extra


@pytest.mark.slow
def test_the_definitions_and_the_commands_do_not_import_pytorch() -> None:
    code = "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None; import btc_assets.definitions, btc_assets.cli.main"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_encoders_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    torch_extra.require_torch()
    monkeypatch.setattr(torch_extra, "find_spec", lambda name: None)
    with pytest.raises(UserError) as raised:
        torch_extra.require_torch()
    assert str(raised.value) == "Encoders need torch and safetensors, which this Python lacks: pip install 'btc-assets[torch]'."
