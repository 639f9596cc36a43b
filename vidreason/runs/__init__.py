"""Runs: training, and what is kept of it.

In come a configuration and the tasks and data modules of `intent` and `decomposition`; out come run
folders (`folder`), trained tasks (`train`), weights for distribution (`weights`, `export`, `hub`)
and programs that need no vidreason (`export`). `configs` finds shipped configurations by name.
"""
