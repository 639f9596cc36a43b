"""Annotated driving videos as `Scene` objects, and one reader for each dataset.

The readers are `jaad`, `pie`, `stip`, and `boxes` for custom datasets. Everything downstream works
on scenes and never sees annotation files. Also contains the XML parser shared by readers (`cvat`),
the cache of scenes (`cache`) and the dataset check (`check`).

Inputs: the root folder of a dataset.
Outputs: a list of scenes.
"""
