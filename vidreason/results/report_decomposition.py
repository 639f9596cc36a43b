"""Report sections about a decomposition: a run or weights, applied to test clips."""

import tempfile
from pathlib import Path

from matplotlib import rc_context

from vidreason.results import page, plots, strips
from vidreason.results.page import SVG, Part, Plot, Section, Sheet
from vidreason.runs import train


def decomposition_part(path: Path, root: Path | None, clips: int, each: int) -> Part:
    """Builds the part about a decomposition model.

    Args:
        path: Run folder or weights.
        root: Dataset folder.
        clips: Number of test clips to score.
        each: Number of clips in each group of cards, at most.
    """
    task, data = train.load_with_data(path, root)
    data.setup("test")
    scored = strips.score_clips(task, data, clips, each)  # type: ignore[arg-type]
    scalars = [key for key, value in scored.scores["model"].items() if value.dim() == 0]
    rows = [
        [
            page.word(key.replace("_", " ")),
            *(page.number(float(s[key]) if key in s else None) for s in scored.scores.values()),
        ]
        for key in scalars
    ]
    predicted = data.length - task.input_frames  # type: ignore[attr-defined]
    text = f"{path.name} on the first {scored.clips} test clips: {task.input_frames} observed "
    text += f"frames, {predicted} predicted frames. "
    text += "MSE, MAE and BCE are summed over the pixels of a frame; position errors are in pixels."
    sheet = Sheet("mean over clips and predicted frames", ["metric", *scored.scores], rows)
    squares = {name: s["mse_by_frame"].numpy() for name, s in scored.scores.items()}
    first = int(task.input_frames) + 1  # type: ignore[arg-type]
    drawn = [("squared error per frame", squares, first)]
    if scored.errors:
        drawn.append(("position error, px", scored.errors, 1))
    figures = []
    with tempfile.TemporaryDirectory() as folder, rc_context(SVG):
        for number, (title, lines, start) in enumerate(drawn):
            file = Path(folder, f"{number}.svg")
            plots.by_frame(file, lines, start, title, title)
            length = len(next(iter(lines.values())))
            cells = [
                [page.count(start + t), *(page.number(float(line[t])) for line in lines.values())]
                for t in range(length)
            ]
            figures.append(Plot(title, page.svg(file), Sheet(title, ["frame", *lines], cells)))
    about = "Components can be switched on and off; the slider moves through observed and "
    about += "predicted frames. Squares are the windows of the components."
    return Part(
        path.name,
        [
            Section("Summary", text, [sheet]),
            Section("Curves", plots=figures),
            Section("Clips", about, groups=scored.cards, kind="strip"),
        ],
    )
