"""The code and the commands of docs/temporal.md work as they stand there."""

import pathlib
import re
import shlex

import numpy as np
import pytest

from carjax.cli import experiment, score, select
from carjax.temporal import sequence_heads

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "temporal.md"
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)


def test_its_code_runs_and_its_own_model_fits_in_sixty_lines(monkeypatch):
    monkeypatch.setattr(sequence_heads, "MIXERS", dict(sequence_heads.MIXERS))
    space = {}
    for kind, block in BLOCKS:
        if kind == "python":
            exec(compile(block, PAGE.name, "exec"), space)
    np.testing.assert_allclose(space["walk"].mean_deg, [10, 12, 14, 16, 18], atol=1.5)
    assert sequence_heads.MIXERS["window_mean"] is space["WindowMean"]
    assert space["get_config"]().sequence.options.seconds == 2.0
    own = [block for kind, block in BLOCKS if kind == "python" and "window_mean" in block]
    assert len(own) == 2
    assert sum(len(block.splitlines()) for block in own) <= 60


@pytest.mark.parametrize(
    ("command", "module"), [("select", select), ("experiment", experiment), ("score", score)]
)
def test_its_commands_have_the_flags_that_there_are(command, module):
    text = " ".join(block for kind, block in BLOCKS if kind == "sh").replace("\\\n", " ")
    text += " carjax score a.mp4 --save_features=grid"  # as its prose says
    calls = re.findall(rf"carjax {command} [^\n#]*", text)
    assert calls
    for call in calls:
        assert module.define_flags()(["carjax", *shlex.split(call)[2:]])[1:]
