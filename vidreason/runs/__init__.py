"""Runs: training, and what is kept of it.

Inputs: a configuration, found by name with `configs`, and the tasks and data modules of `intent`
and `decomposition`.
Outputs: run folders (`folder`), trained tasks (`train`), weights for distribution (`weights`,
`export`, `hub`) and programs that run without vidreason (`export`).
"""
