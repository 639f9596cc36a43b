"""Annotated driving videos as `Scene` objects, and one reader for each dataset.

Readers (`jaad`, `pie`, `stip`, and `boxes` for custom datasets) take the root folder of a dataset
and return a list of scenes; everything downstream works on scenes and never sees annotation files.
Also contains the XML parser shared by readers (`cvat`), the cache of scenes (`cache`) and the
dataset check (`check`).
"""
