"""What the commands share: parsing absl flags; and how a script beside the package ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from absl import flags

from carjax.errors import CarjaxError, UsageError

if TYPE_CHECKING:
    from carjax.model import Model


def define_model(values: flags.FlagValues, *, localise: bool = True) -> None:
    """Defines the flags that say which model scores, and whether it finds the car first."""
    flags.DEFINE_string("model", None, "a bundle's name, file or folder", flag_values=values)
    flags.DEFINE_string(
        "backbone_weights", None, "weights of a backbone not shipped", flag_values=values
    )
    if localise:
        what = "score the car's crop (default: if the model finds cars)"
        flags.DEFINE_bool("localise", None, what, flag_values=values)


def parse(values: flags.FlagValues, argv: list[str], synopsis: str) -> list[str]:
    """Parses flags and returns the positional arguments.

    Args:
        values: the command's own flags.
        argv: the words after the command.
        synopsis: first lines of its help.

    Raises:
        UsageError: an unknown flag or a bad value.
        SystemExit: --help was given, and the text has been printed: status 0, as of argparse.
    """
    if any(word in ("-h", "--help", "-help") for word in argv):
        print(help_text(values, synopsis))
        raise SystemExit(0)
    try:
        return values(["carjax", *argv])[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from None


def parse_flags(values: flags.FlagValues, argv: list[str], synopsis: str, command: str) -> None:
    """Parses the flags of a command that takes nothing else, as `parse` does.

    Raises:
        UsageError: also for a word that is no flag.
    """
    words = parse(values, argv, synopsis)
    if words:
        raise UsageError(f"carjax {command} takes flags only, not {words[0]!r}")


def help_text(values: flags.FlagValues, synopsis: str) -> str:
    """Returns a help text that fits a screen: one line per flag."""
    lines = [synopsis, ""]
    for name in sorted(values):
        flag = values[name]
        if name != flag.name:
            continue
        boolean = isinstance(flag, flags.BooleanFlag)
        default = "…" if flag.default is None else str(flag.default_as_str).strip("'")
        shown = f"--[no]{name}" if boolean else f"--{name}={default}"
        # To a flag that may be repeated absl adds a line that says so.
        lines.append(f"  {shown:<30} {flag.help.splitlines()[0].rstrip(';')}")
    return "\n".join(lines)


def localised(model: Model, asked: bool | None) -> Model:
    """The model with or without its car box, as `--localise` says; a missing one is told.

    Raises:
        CarjaxError: asked for a car box that the model does not have.
    """
    if asked is None and model.spec.of_cars and model.spec.localise is None:
        print("carjax: this model has no car box: whole frames are scored", file=sys.stderr)
    return model.with_localise(asked)


def script(name: str, main: Callable[[list[str]], int]) -> NoReturn:
    """Runs a script's main on the command line, and ends the process: status 1 after a failure.

    Args:
        name: what a failure's text begins with.
        main: argv without the program's name → exit status.

    Raises:
        SystemExit: always.
    """
    try:
        sys.exit(main(sys.argv[1:]))
    except CarjaxError as error:
        sys.exit(f"{name}: {error}")
