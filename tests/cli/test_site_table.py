"""What a site's run tells where nobody looks at a terminal."""

from __future__ import annotations

import pytest

from cli.site_table import SiteTable
from infra.site.engine import State
from infra.site.step import Step


def test_what_a_machine_has_said_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    step = Step("upgrade", "master", (), lambda facts: [])
    said = "[preflight] Some fatal errors occurred: [/upgrade] :warning:"
    SiteTable([step]).report(step, State.FAILED, said)
    assert capsys.readouterr().out == f"master: upgrade: failed {said}\n"
