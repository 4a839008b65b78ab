"""The `carjax` command: one module per subcommand, absl flags, one clear line per failure."""
