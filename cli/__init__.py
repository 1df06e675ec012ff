"""The ``mlops`` command: thin, one file a subcommand."""
