"""Track table of a run (`tracks.parquet`): one row per clip, frame and component."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from vidreason.core.files import write_atomic
from vidreason.decomposition.clip import Clip, Decomposition
from vidreason.decomposition.metrics import mse


def track_columns(
    clip: Clip, frames: Tensor, decomposition: Decomposition
) -> dict[str, np.ndarray]:
    """Returns the columns of a track table for a batch.

    Args:
        clip: The clips.
        frames: Their frames, (B, L, C, S, S) in [0, 1].
        decomposition: Their decomposition over L frames into N components.

    Returns:
        Arrays of B L N rows: `clip`, `frame` and `component` are indices from 0; `x`, `y` and
        `side` are the component's window in px; `frame_mse` is the squared error of the whole
        frame, see `metrics.mse`.
    """
    clips, length, count = decomposition.sides.shape
    grid = torch.meshgrid(
        clip.index.cpu(), torch.arange(length), torch.arange(count), indexing="ij"
    )
    columns = dict(zip(("clip", "frame", "component"), grid, strict=True))
    x, y = decomposition.positions.unbind(-1)
    columns |= {"x": x, "y": y, "side": decomposition.sides}
    error = mse(decomposition.frames, frames)
    columns["frame_mse"] = error[..., None].expand(clips, length, count)
    return {name: column.flatten().cpu().numpy() for name, column in columns.items()}


def write_tracks(path: Path, columns: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes a track table; the file is written atomically.

    Args:
        path: Parquet file.
        columns: Arrays from `track_columns`.
        meta: Stored as JSON under `vidreason` in the file's metadata.
    """
    table = pa.table(dict(columns)).replace_schema_metadata({"vidreason": json.dumps(dict(meta))})
    with write_atomic(path) as temporary:
        pq.write_table(table, temporary)
