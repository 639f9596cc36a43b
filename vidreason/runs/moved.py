"""Class paths in configurations and checkpoints that were written before a class moved."""

from typing import Any

_PATHS = {
    "vidreason.intent.IntentTask": "vidreason.intent.task.IntentTask",
    "vidreason.data.modules.IntentData": "vidreason.intent.data.IntentData",
    "vidreason.models.IntentGraphNet": "vidreason.intent.networks.IntentGraphNet",
    "vidreason.models.StipNet": "vidreason.intent.networks.StipNet",
    "vidreason.decompose.DecomposeTask": "vidreason.decomposition.task.DecomposeTask",
    "vidreason.data.clips.MovingMNISTData": "vidreason.decomposition.data.MovingMNISTData",
    "vidreason.data.balls.BallsData": "vidreason.decomposition.ball_data.BallsData",
    "vidreason.models.DDPAE": "vidreason.decomposition.networks.DDPAE",
    "vidreason.models.EquivariantDDPAE": "vidreason.decomposition.networks.EquivariantDDPAE",
}


def current(value: Any) -> Any:
    """Returns plain values with old class paths replaced, also in nested dictionaries and lists."""
    if isinstance(value, dict):
        return {key: current(item) for key, item in value.items()}
    if isinstance(value, list):
        return [current(item) for item in value]
    return _PATHS.get(value, value) if isinstance(value, str) else value
