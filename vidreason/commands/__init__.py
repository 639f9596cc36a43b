"""One module per command, each with `add_arguments(parser)` and `run(args)`.

`add_arguments` declares description, examples and options. `run` validates the options, calls the
library and prints; it returns the exit code. The modules import the standard library only, so that
`--help` is quick: `run` imports what it needs.
"""
