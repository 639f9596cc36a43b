"""The convolutional parts of `EquivariantDDPAE`."""

import torch
from torch import nn


def convolutions(
    channels: int, width: int, content: int
) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    """Builds and initializes the scout, the content network and the decoder.

    Args:
        channels: Channels C of the frames.
        width: Channels of the scout.
        content: Channels D of the content.

    Returns:
        The scout maps three consecutive frames (B, 3 C, S, S) to scores (B, 1, S/4, S/4), the
        content network windows (B, 4 C, s, s) to (B, 2 D, s/4, s/4), and the decoder contents
        (B, D, s/4, s/4) to the logits of objects (B, C, s, s).
    """
    leak = nn.LeakyReLU(0.1, inplace=True)
    scout = nn.Sequential(
        *(nn.Conv2d(3 * channels, width // 2, 5, 2, 2), leak),
        *(nn.Conv2d(width // 2, width, 3, 2, 1), leak),
        *(nn.Conv2d(width, width, 3, 1, 1), leak),
        *(nn.Conv2d(width, width, 3, 1, 2, dilation=2), leak),
        nn.Conv2d(width, 1, 1),
    )
    look = nn.Sequential(
        *(nn.Conv2d(4 * channels, 24, 4, 2, 1), leak),
        *(nn.Conv2d(24, 32, 4, 2, 1), leak),
        nn.Conv2d(32, 2 * content, 3, 1, 1),
    )
    last = nn.ConvTranspose2d(24, channels, 4, 2, 1)
    decoder = nn.Sequential(
        *(nn.Conv2d(content, 32, 3, 1, 1), nn.ReLU(inplace=True)),
        *(nn.ConvTranspose2d(32, 24, 4, 2, 1), nn.ReLU(inplace=True)),
        last,
    )
    for module in (*scout, *look, *decoder):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.kaiming_normal_(module.weight, 0.1)
            assert module.bias is not None
            nn.init.constant_(module.bias, -3.0 if module is last else 0.0)  # dark objects
    # Convolutions with few channels are fastest on a CPU in this layout.
    scout.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return scout, look, decoder
