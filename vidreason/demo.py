"""Demo: trains, evaluates and draws both systems on simulated data."""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from vidreason.core.errors import DataError
from vidreason.core.files import share
from vidreason.intent.data import IntentData
from vidreason.intent.predictions import KEY, match, prediction_columns, read_predictions
from vidreason.perception.prepare import Job, prepare_video
from vidreason.perception.store import Prepared
from vidreason.perception.video import Video
from vidreason.results.drawings import draw_instances, draw_windows
from vidreason.results.evaluate import evaluate, write_evaluation
from vidreason.results.live import Live
from vidreason.results.predict_video import OUTPUTS, frames_of_store, predict_frames
from vidreason.results.report import write_report
from vidreason.results.tables import print_tables
from vidreason.runs import train
from vidreason.runs.train import load_with_data
from vidreason.runs.weights import DEFAULT_VIDEO
from vidreason.simulation.film import Film, TrueMasks, write_film
from vidreason.simulation.street import write_street
from vidreason.simulation.world import simulate


def demo(out: Path, videos: int) -> int:
    """Runs both systems on simulated data.

    Args:
        out: Output folder; an older demo in it is replaced.
        videos: Number of streets to simulate.

    Returns:
        Exit code.

    Raises:
        DataError: Too few videos, or `out` contains other files.
    """
    if videos < 20:
        raise DataError("--videos", f"must be at least 20, got {videos}", "correct the option")
    if out.exists() and any(out.iterdir()) and not (out / "streets").is_dir():
        raise DataError(out, "contains files that are not of a demo", "give another --out")
    shutil.rmtree(out, ignore_errors=True)
    root, folder = out / "streets", out / "run"
    print(f"1/9 simulating {videos} streets into {root}")
    write_street(root, videos)
    print(f"2/9 training an intent model in {folder}")
    if code := _train("configs/intent/demo_streets.yaml", folder, f"--data.root={root}"):
        return code
    print("3/9 evaluating the predictions on held-out streets")
    evaluation = evaluate([folder], root)
    print_tables(evaluation)
    write_evaluation(evaluation, folder / "evaluation")
    print("4/9 drawing predictions")
    picture = out / "forecasts.png"
    data = _draw_predictions(picture, folder / "predictions.parquet", root)
    video = min(data.scenes["test"], key=lambda scene: scene.length).id
    print(f"5/9 filming {video} and tracking the instances in the film")
    clip, instances = root / "JAAD_clips" / f"{video}.mp4", out / "instances.png"
    film = Film(simulate(0, int(video.removeprefix("video_"))))
    write_film(clip, film)
    prepare_video(Job(video, clip, out / "store", "truth", partial(TrueMasks, film)))
    prepared = Prepared(out / "store" / f"{video}.arrow")
    frames = [prepared.length // 4, prepared.length // 2]
    draw_instances(instances, Video(clip), prepared, frames)
    shipped = out / "shipped"
    print(f"6/9 predicting in the film with the weights {DEFAULT_VIDEO}")
    _predict_video(clip, prepared, shipped / video)
    clips = out / "digits"
    print(f"7/9 training a decomposition of moving digits in {clips}")
    if code := _train("configs/decomposition/demo_digits.yaml", clips):
        return code
    print("8/9 decomposing moving digits with the weights moving_mnist")
    drawn = ("--data.source=drawn", "--data.test_clips=16", "--trainer.enable_progress_bar=false")
    place = ("--out", str(shipped / "digits"))
    if code := train.main(("predict", "--weights", "moving_mnist", *place, *drawn)):
        return code
    page = out / "report.html"
    print(f"9/9 writing the report {page}")
    write_report([folder, shipped / video / OUTPUTS[0], clips], page, root, clip, clips=50)
    print(f"\nreport:      {page}")
    print(f"predictions: {picture}")
    print(f"film:        {clip}, with tracked instances: {instances}")
    print(f"forecasts:   {shipped / video / OUTPUTS[1]}, with weights trained on real streets")
    print(f"metrics:     {folder / 'evaluation' / 'metrics.json'}")
    print(f"digits:      {clips / 'filmstrips' / 'clip_00000.png'}, and .gif")
    print(f"             {shipped / 'digits' / 'filmstrips'}, with weights trained on real digits")
    return 0


def _train(config: str, folder: Path, *options: str) -> int:
    """Trains and predicts; returns the exit code."""
    fit = ("-c", str(share(config)), f"--trainer.default_root_dir={folder}", *options)
    quiet = "--trainer.enable_progress_bar=false"
    return train.main(("fit", *fit, "--trainer.enable_model_summary=false")) or train.main(
        ("predict", "--run", str(folder), quiet)
    )


def _draw_predictions(picture: Path, file: Path, root: Path) -> IntentData:
    """Draws the most confident right and wrong prediction of each label; returns the data."""
    predictions = read_predictions(file)
    data = IntentData(predictions.meta["features"], root=str(root))
    data.setup("predict")
    windows, scenes = data.windows["test"], data.scenes["test"]
    columns = prediction_columns(windows, scenes, np.zeros((len(windows), 1)))
    ours, theirs = match(predictions.table, pa.table({name: columns[name] for name in KEY}))
    window = theirs[np.argsort(ours)]  # predictions are sorted by their key, windows are not
    probability, label = predictions["probability"], predictions["label"]
    order = np.argsort(probability)
    crosses, stays = order[label[order] == 1], order[label[order] == 0]
    chosen = [crosses[-1], stays[0], crosses[0], stays[-1]]
    draw_windows(picture, scenes, windows, window[chosen].tolist(), probability[chosen].tolist())
    return data


def _predict_video(clip: Path, prepared: Prepared, out: Path) -> None:
    """Writes forecasts and overlay of a prepared video, with the shipped weights."""
    task, data = load_with_data(DEFAULT_VIDEO)
    video = Video(clip)
    live = Live(task, data, video.fps, (video.width, video.height))  # type: ignore[arg-type]
    predict_frames(live, video, frames_of_store(video, prepared), 1, out, DEFAULT_VIDEO)
