"""`vidreason demo`: both systems on data that it makes itself, each ending in a picture."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from vidreason.cli import run
from vidreason.core.errors import DataError
from vidreason.core.files import share


def demo(out: Path, videos: int) -> int:
    """Runs both systems on simulated data.

    Args:
        out: Output folder; an older demo in it is replaced.
        videos: Number of streets to simulate.

    Returns:
        Exit code.

    Raises:
        DataError: Too few videos, or `out` holds other files.
    """
    # Imported here, so that `--help` need not wait for them.
    from vidreason.intent.data import IntentData
    from vidreason.intent.predictions import KEY, match, prediction_columns, read_predictions
    from vidreason.perception.prepare import Job, prepare_video
    from vidreason.perception.store import Prepared
    from vidreason.perception.video import Video
    from vidreason.results.drawings import draw_instances, draw_windows
    from vidreason.results.live import OUTPUTS, Live, from_store, predict
    from vidreason.results.report import write_report
    from vidreason.runs import train
    from vidreason.runs.train import load_with_data
    from vidreason.runs.weights import DEFAULT_VIDEO
    from vidreason.simulation.film import Film, TrueMasks, write_film
    from vidreason.simulation.street import write_street
    from vidreason.simulation.world import simulate

    if videos < 20:
        raise DataError("--videos", f"{videos} is too few to learn from", "give 20 or more")
    if out.exists() and any(out.iterdir()) and not (out / "streets").is_dir():
        problem = "holds something that is not a demo"
        raise DataError(out, problem, "give another --out")
    shutil.rmtree(out, ignore_errors=True)
    root, folder = out / "streets", out / "run"
    print(f"1/9 simulating {videos} streets into {root}")
    write_street(root, videos)
    print(f"2/9 training an intent model into {folder}")
    if code := _train("configs/intent/demo.yaml", folder, f"--data.root={root}"):
        return code
    print("3/9 scoring the forecasts on streets that training has not seen")
    found = read_predictions(folder / "predictions.parquet")
    run(["evaluate", str(folder), f"--root={root}"])
    print("4/9 drawing")
    data = IntentData(found.meta["features"], root=str(root))
    data.setup("predict")
    windows, scenes = data.windows["test"], data.scenes["test"]
    columns = prediction_columns(windows, scenes, np.zeros((len(windows), 1)))
    ours, theirs = match(found.table, pa.table({name: columns[name] for name in KEY}))
    window = theirs[np.argsort(ours)]  # forecasts are sorted by their key, windows are not
    probability, label = found["probability"], found["label"]
    # The surest of each answer and the worst of each: where to look first.
    order = np.argsort(probability)
    crosses, stays = order[label[order] == 1], order[label[order] == 0]
    chosen = [crosses[-1], stays[0], crosses[0], stays[-1]]
    picture = out / "forecasts.png"
    draw_windows(picture, scenes, windows, window[chosen].tolist(), probability[chosen].tolist())
    clips = out / "digits"
    video = min(data.scenes["test"], key=lambda scene: scene.length).id
    print(f"5/9 filming {video}, and following what is in the film")
    clip, seen = root / "JAAD_clips" / f"{video}.mp4", out / "instances.png"
    film = Film(simulate(0, int(video.removeprefix("video_"))))
    write_film(clip, film)
    prepare_video(Job(video, clip, out / "store", "truth", partial(TrueMasks, film)))
    prepared = Prepared(out / "store" / f"{video}.arrow")
    draw_instances(seen, Video(clip), prepared, [prepared.length // 4, prepared.length // 2])
    shipped = out / "shipped"
    print(f"6/9 forecasting in the film with the weights {DEFAULT_VIDEO}")
    task, source = load_with_data(DEFAULT_VIDEO)
    filmed = Video(clip)
    live = Live(task, source, filmed.fps, (filmed.width, filmed.height))  # type: ignore[arg-type]
    predict(live, filmed, from_store(filmed, prepared), 1, shipped / video, DEFAULT_VIDEO)
    print(f"7/9 training a decomposition of moving digits into {clips}")
    if code := _train("configs/decomposition/demo.yaml", clips):
        return code
    print("8/9 taking such clips apart with the weights moving_mnist")
    drawn = ("--data.source=drawn", "--data.test_clips=16", "--trainer.enable_progress_bar=false")
    place = ("--out", str(shipped / "digits"))
    if code := train.main(("predict", "--weights", "moving_mnist", *place, *drawn)):
        return code
    page = out / "report.html"
    print(f"9/9 making a page of it all: {page}")
    forecasts = shipped / video / OUTPUTS[0]
    write_report([folder, forecasts, clips], page, root, clip, clips=50)
    print(f"\npage:     {page}")
    print(f"picture:  {picture}")
    print(f"film:     {clip}, and what was followed in it: {seen}")
    print(f"forecast: {shipped / video / OUTPUTS[1]}, by weights from real streets")
    print(f"table:    {folder / 'evaluation' / 'metrics.json'}")
    print(f"digits:   {clips / 'filmstrips' / 'clip_00000.png'}, and .gif")
    print(f"          {shipped / 'digits' / 'filmstrips'}, by weights from real digits")
    return 0


def _train(config: str, folder: Path, *options: str) -> int:
    """Fits and predicts; what `train.main` returns."""
    from vidreason.runs import train

    fit = ("-c", str(share(config)), f"--trainer.default_root_dir={folder}", *options)
    quiet = "--trainer.enable_progress_bar=false"
    return train.main(("fit", *fit, "--trainer.enable_model_summary=false")) or train.main(
        ("predict", "--run", str(folder), quiet)
    )
