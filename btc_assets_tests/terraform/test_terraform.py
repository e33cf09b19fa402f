"""The Terraform code: valid for the AWS provider's real schema, and each rule of terraform/tests holds. Nothing reaches AWS."""

import shutil
import subprocess

import pytest

from btc_assets_tests.support.paths import PROJECT
from btc_assets_tests.support.waiting import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

CHECK = PROJECT.parent / "shared" / "tools" / "terraform_check" / "check"  # terraform with no access to its registry


def test_the_terraform_code_is_valid_and_keeps_the_rules_of_a_private_host() -> None:
    if not CHECK.exists():
        pytest.skip("terraform_check is not beside the project: make check-terraform does the same with Terraform's registry")
    for tool in ("terraform", "npm"):
        if shutil.which(tool) is None:
            pytest.skip(f"the Terraform code is checked where there is {tool}")
    checked = subprocess.run([CHECK, PROJECT / "terraform"], capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert ", 0 failed" in checked.stdout
