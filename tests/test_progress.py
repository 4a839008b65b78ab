import io

from rich.console import Console

from carjax import progress


def test_a_bar_appears_when_it_is_told_of_and_moves():
    out = io.StringIO()
    with progress.bars(console=Console(file=out, width=100, force_terminal=True)) as show:
        show("reading", 1, None)
        show("steps", 3, 9, "loss 0.500")
        show("steps", 9, 9, "loss 0.250")
    last = out.getvalue()
    assert "reading" in last
    assert "1/?" in last
    assert "9/9" in last
    assert "loss 0.250" in last


def test_a_quiet_one_shows_nothing():
    out = io.StringIO()
    with progress.bars(quiet=True, console=Console(file=out, force_terminal=True)) as show:
        show("steps", 3, 9)
    assert not out.getvalue()
