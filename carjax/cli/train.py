"""`carjax train`: train one head, or the car box, on a frozen backbone."""

from __future__ import annotations

import ast
import contextlib
import pathlib

from absl import flags

from carjax import files, runtime
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError, needing

SYNOPSIS = """usage: carjax train --config=FILE --workdir=DIR [--config.NAME=VALUE …] [--FLAGS]

Trains what the config names, resuming where DIR stands; DIR/head.safetensors is the result.
`carjax bundle` joins several into a model. Example:

  carjax train --config=configs/brand.py --workdir=out/brand --config.steps=600"""


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    with needing("train", "training"):
        from ml_collections import config_flags

    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        help_string="file with get_config(); --config.NAME=VALUE overrides a setting",
        flag_values=values,
        sys_argv=["carjax", *argv],
    )
    flags.DEFINE_string("workdir", None, "folder of this run alone", flag_values=values)
    flags.DEFINE_string(
        "data_dir", None, "folder of data sets (default: $CARJAX_DATA)", flag_values=values
    )
    flags.DEFINE_string(
        "cache_dir", None, "where features are kept (~/.cache/carjax)", flag_values=values
    )
    flags.DEFINE_boolean("quiet", False, "show no progress", flag_values=values)
    flags.DEFINE_boolean(
        "distributed",
        False,
        "one of several processes, of a TPU pod or Slurm",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator", None, "host:port of process 0, without pod or Slurm", flag_values=values
    )
    flags.DEFINE_integer("processes", None, "how many, without pod or Slurm", flag_values=values)
    flags.DEFINE_integer("process_id", None, "this process's number, from 0", flag_values=values)
    _check_config_path(argv)
    try:
        common.parse_flags(values, argv, SYNOPSIS, "train")
    except CarjaxError:
        raise
    except (AttributeError, KeyError) as error:
        # A KeyError's own text is that of a literal, and may hold another one's.
        said = str(error.args[0] if error.args else error)
        with contextlib.suppress(ValueError, SyntaxError):
            said = str(ast.literal_eval(said))
        said = " ".join(said.split())
        raise UsageError(f"--config: no such setting: {said}") from None
    except Exception as error:
        # The config file is run while flags are parsed, and is anybody's program.
        raise UsageError(f"--config: {error}") from None
    if values.config is None or not values.workdir:
        raise UsageError("carjax train needs --config=FILE and --workdir=DIR (see --help)")

    runtime.set_up_jax()
    if values.distributed:
        runtime.join_processes(values.coordinator, values.processes, values.process_id)
    elif any(v is not None for v in (values.coordinator, values.processes, values.process_id)):
        raise UsageError("--coordinator, --processes and --process_id need --distributed")
    from carjax.training import loop, run_folder

    result = loop.train_and_evaluate(
        values.config,
        values.workdir,
        values.data_dir,
        cache_dir=values.cache_dir,
        quiet=values.quiet,
    )
    what = "photos" if "photos" in result else "frames"
    count = sum(result[what].values())
    print(f"{values.config.attribute}: trained on {count} {what} in {result['seconds']} s")
    for name, value in result["held_out"].items():
        print(f"  {name:<20} {value:.4f}")
    print(f"  {files.locate(values.workdir) / run_folder.HEAD_FILE}")
    return 0


def _check_config_path(argv: list[str]) -> None:
    """A missing file gives one line of its own: the flag's own message runs over several."""
    for i, word in enumerate(argv):
        name, _, value = word.lstrip("-").partition("=")
        if word.startswith("-") and name == "config":
            path = value or (argv[i + 1] if i + 1 < len(argv) else "")
            # Behind a colon may stand what ml_collections hands to get_config.
            if not any(pathlib.Path(p).is_file() for p in (path, path.rsplit(":", 1)[0])):
                raise UsageError(f"--config={path}: no such config file")
