"""`vidreason demo`: both systems on data that it makes itself, each ending in a picture."""

import argparse
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from vidreason.core.errors import DataError
from vidreason.core.files import share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = """\
Simulates streets in JAAD's layout, trains an intent model on them, forecasts who will cross on
streets it has not seen, scores the forecasts beside baselines, and draws some of them. Films one of
those streets, follows everybody and everything in the film, and forecasts with the weights that
come with vidreason, which were trained on real streets. Then draws digits that move, trains a
decomposition model on them, and shows what components it sees in clips that it has not seen, and
where they will go; and takes such clips apart with the weights of real digits. A page shows it
all. Needs no data and no network; takes two minutes."""
    parser.epilog = """examples:
  vidreason demo
  vidreason demo --out demo --videos 120"""
    parser.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="(runs/demo) replaced"
    )
    parser.add_argument("--videos", type=int, default=100, metavar="N", help="to simulate (100)")


def run(args: argparse.Namespace) -> int:
    """Runs the command."""
    # Imported here, so that `--help` need not wait for them.
    from vidreason.intent.data import IntentData
    from vidreason.intent.predictions import KEY, match, prediction_columns, read_predictions
    from vidreason.perception.prepare import Job, prepare_video
    from vidreason.perception.store import Prepared
    from vidreason.perception.video import Video
    from vidreason.results import evaluate
    from vidreason.results.drawings import draw_instances, draw_windows
    from vidreason.results.live import OUTPUTS, Live, from_store, predict
    from vidreason.results.report import write_report
    from vidreason.runs import train
    from vidreason.runs.train import load_with_data
    from vidreason.runs.weights import DEFAULT_VIDEO
    from vidreason.simulation.film import Film, TrueMasks, write_film
    from vidreason.simulation.street import write_street
    from vidreason.simulation.world import simulate

    if args.videos < 20:
        raise DataError("--videos", f"{args.videos} is too few to learn from", "give 20 or more")
    if args.out.exists() and any(args.out.iterdir()) and not (args.out / "streets").is_dir():
        problem = "holds something that is not a demo"
        raise DataError(args.out, problem, "give another --out")
    shutil.rmtree(args.out, ignore_errors=True)
    root, folder = args.out / "streets", args.out / "run"
    print(f"1/9 simulating {args.videos} streets into {root}")
    write_street(root, args.videos)
    print(f"2/9 training an intent model into {folder}")
    if code := _train("configs/intent/demo.yaml", folder, f"--data.root={root}"):
        return code
    print("3/9 scoring the forecasts on streets that training has not seen")
    found = read_predictions(folder / "predictions.parquet")
    scoring = argparse.ArgumentParser()
    evaluate.add_arguments(scoring)
    evaluate.run(scoring.parse_args([str(folder), f"--root={root}"]))
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
    picture = args.out / "forecasts.png"
    draw_windows(picture, scenes, windows, window[chosen].tolist(), probability[chosen].tolist())
    clips = args.out / "digits"
    video = min(data.scenes["test"], key=lambda scene: scene.length).id
    print(f"5/9 filming {video}, and following what is in the film")
    clip, seen = root / "JAAD_clips" / f"{video}.mp4", args.out / "instances.png"
    film = Film(simulate(0, int(video.removeprefix("video_"))))
    write_film(clip, film)
    prepare_video(Job(video, clip, args.out / "store", "truth", partial(TrueMasks, film)))
    prepared = Prepared(args.out / "store" / f"{video}.arrow")
    draw_instances(seen, Video(clip), prepared, [prepared.length // 4, prepared.length // 2])
    shipped = args.out / "shipped"
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
    out = ("--out", str(shipped / "digits"))
    if code := train.main(("predict", "--weights", "moving_mnist", *out, *drawn)):
        return code
    page = args.out / "report.html"
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
