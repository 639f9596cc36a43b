"""`IntentTask`: loss, out-of-fold predictions, threshold and averaged weights."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from make.tiny_run import TinyData, TinyNet
from torch import Tensor, nn
from torch_geometric.data import HeteroData

from vidreason.core.errors import DataError
from vidreason.intent.metrics import accuracy, f1
from vidreason.intent.task import IntentTask


class Fixed(nn.Module):
    """Network that returns fixed logits."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.members, self.logits = len(logits), nn.Parameter(logits)

    def forward(self, graph: HeteroData) -> Tensor:
        return self.logits


def graph(y: list, tags: list, fold: list) -> HeteroData:
    data = HeteroData()
    data.y, data.tags = torch.tensor(y), torch.tensor(tags).reshape(len(y), -1)
    data.fold, data.window = torch.tensor(fold), torch.arange(10, 10 + len(y))
    return data


def task(logits: Tensor, **options: object) -> IntentTask:
    return IntentTask(Fixed(logits), folds=len(logits), **options)


def trainer(folder, epochs: int = 1) -> pl.Trainer:
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    options = dict.fromkeys(quiet, False)
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=folder,
        log_every_n_steps=1,
        **options,
    )


NAN = float("nan")


def test_loss_is_the_mean_over_labelled_windows_that_are_not_held_out():
    # Two members, three windows, T = 2 observed, K = 1 predicted, A = 1 tag.
    data = graph(
        y=[[1.0, NAN, 1.0], [0.0, 1.0, 0.0], [NAN, NAN, 0.0]],
        tags=[1.0, NAN, 0.0],
        fold=[0, 1, -1],
    )
    logits = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    model = task(logits, detection_weight=0.3, tag_weight=0.7)
    model.prevalence.fill_(0.2)

    total = 0.0
    labels = torch.cat([data.y, data.tags], 1)
    for member in range(2):
        for columns, weight in (((2,), 1.0), ((0, 1), 0.3), ((3,), 0.7)):
            losses = []
            for window in range(3):
                for column in columns:
                    label, held_out = labels[window, column].item(), data.fold[window] == member
                    if label == label and not held_out:
                        p = logits[member, window, column].sigmoid().item()
                        loss = -np.log(p if label else 1 - p)
                        share = (0.2 if label else 0.8) if columns == (2,) else 0.5
                        losses.append(loss * 0.5 / share)
            total += weight * np.mean(losses)
    assert model.loss(logits, data).item() == pytest.approx(total, rel=1e-5)


def test_logits_without_label_do_not_affect_loss_and_gradient():
    data = graph(y=[[NAN, 1.0], [0.0, 0.0]], tags=[[], []], fold=[-1, -1])
    logits = torch.tensor([[[0.5, 1.0], [2.0, -1.0]]], requires_grad=True)
    expected = task(logits.detach()).loss(logits, data)
    broken = logits.detach().clone()
    broken[0, 0, 0] = torch.nan
    broken.requires_grad_()
    loss = task(logits.detach()).loss(broken, data)
    assert loss == expected
    loss.backward()
    assert broken.grad.isfinite().all() and broken.grad[0, 0, 0] == 0


def test_with_balanced_classes_one_half_is_the_best_constant_prediction():
    label = torch.tensor([1.0] * 3 + [0.0] * 7)
    data = graph(y=label[:, None].tolist(), tags=[[]] * 10, fold=[-1] * 10)
    logits = torch.zeros(1, 10, 1, requires_grad=True)
    model = task(logits.detach())
    model.prevalence.fill_(0.3)
    model.loss(logits, data).backward()
    assert logits.grad.sum().item() == pytest.approx(0, abs=1e-7)


def test_held_out_windows_are_predicted_by_the_member_that_holds_them_out():
    logits = torch.tensor([[[0.0], [0.0], [0.0]], [[4.0], [4.0], [4.0]]])
    data = graph(y=[[NAN], [NAN], [NAN]], tags=[[]] * 3, fold=[0, 1, -1])
    found = task(logits).predict_step(data)
    high = torch.tensor(4.0).sigmoid().item()
    assert found["probability"][:, 0].tolist() == pytest.approx([0.5, high, (0.5 + high) / 2])
    assert found["window"].tolist() == [10, 11, 12]
    assert found["probability"].dtype == torch.float32


def test_nan_logits_are_refused_with_their_window():
    logits = torch.tensor([[[0.0], [torch.nan]]])
    data = graph(y=[[1.0], [1.0]], tags=[[]] * 2, fold=[-1, -1])
    for step in (lambda: task(logits).predict_step(data), lambda: task(logits).test_step(data)):
        with pytest.raises(DataError, match="window 11: the network returned NaN"):
            step()


@pytest.mark.parametrize(
    ("protocol", "horizon", "metric"), [("benchmark", 1, f1), ("stip", 2, accuracy)]
)
def test_the_best_threshold_of_the_validation_split_is_stored_and_used_in_testing(
    protocol, horizon, metric, tmp_path
):
    pl.seed_everything(1, verbose=False)
    model = IntentTask(TinyNet([], 16, horizon), protocol, horizon, lr=1e-3)
    data, run = TinyData([], horizon=horizon), trainer(tmp_path)
    run.fit(model, data)
    threshold = float(model.state_dict()["threshold"])

    probability, label = [], []
    for part in data.val_dataloader():
        logits = model.averaged.module.eval()(part)[:, -horizon:].detach()
        probability.append(logits.sigmoid().numpy())
        label.append(part.y[:, -horizon:].numpy())
    probability, label = np.concatenate(probability).ravel(), np.concatenate(label).ravel()
    best = max(metric(probability, label, threshold=cut) for cut in [0, *probability, 1])
    assert metric(probability, label, threshold=threshold) == best
    assert threshold not in probability
    name = {"benchmark": "val/f1", "stip": "val/acc"}[protocol]
    assert run.callback_metrics[name].item() == pytest.approx(best)
    assert model.monitor == {"benchmark": "val/auc", "stip": "val/acc"}[protocol]

    model.threshold.fill_(2.0)  # testing uses it as it is: no positives
    assert run.test(model, data, verbose=False)[0]["test/f1"] == 0
    assert float(model.threshold) == 2


def test_averaged_weights_are_an_exponential_moving_average(tmp_path):
    seen, steps = [], []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            # Callbacks run before the task's own hook, which updates the average.
            seen.append(copy.deepcopy(pl_module.net.first.weight.detach()))
            steps.append(copy.deepcopy(pl_module.averaged.module.first.weight))

    model = IntentTask(TinyNet([], 16, 1), average=0.5)
    run = trainer(tmp_path)
    run.callbacks.append(Watch())
    run.fit(model, TinyData([]))
    average = seen[0]
    for number, weight in enumerate(seen[1:], 1):
        assert torch.allclose(steps[number], average, atol=1e-6)
        decay = min(0.5, (1 + number) / (10 + number))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(model.averaged.module.first.weight, average, atol=1e-6)


def test_training_learns_a_visible_label(tmp_path):
    pl.seed_everything(0, verbose=False)
    model, run = IntentTask(TinyNet([], 16, 1), lr=3e-2), trainer(tmp_path, epochs=5)
    run.fit(model, TinyData([]))
    assert run.callback_metrics["val/auc"] > 0.95
    assert run.callback_metrics["train/loss"] < np.log(2)


def test_labels_of_one_class_and_options_out_of_range_are_refused(tmp_path):
    data = TinyData([])
    data.windows["train"].label[:, -1] = 0
    with pytest.raises(DataError, match="0% of the training labels are crossings"):
        trainer(tmp_path).fit(IntentTask(TinyNet([], 16, 1)), data)
    for option in ({"lr": 0.0}, {"lr": NAN}, {"weight_decay": -1.0}, {"average": 1.0}):
        with pytest.raises(DataError, match=f"model.{next(iter(option))}: must be between"):
            IntentTask(TinyNet([], 16, 1), **option)
    with pytest.raises(DataError, match="data.folds: 3 for a network of 1 members"):
        IntentTask(TinyNet([], 16, 1), folds=3)
