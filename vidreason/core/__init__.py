"""Foundations that every other package builds on; imports none of them.

Contains the error type (`errors`), atomic writing, downloading and unpacking (`files`), Parquet and
Arrow tables (`tables`), samplers (`loading`), distributed training (`processes`), weight averaging
(`averaging`) and the colour palette (`colours`).

Inputs: paths, tables and options; unusable input raises a `DataError`.
Outputs: files that are complete or absent, tables, samplers.
"""
