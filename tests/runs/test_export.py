"""Programs of the intent network: torch.export and ONNX."""

import pytest
import torch
from make import graphs

from vidreason.core.errors import DataError
from vidreason.intent.networks import IntentGraphNet
from vidreason.runs import export
from vidreason.runs.train import load_weights


def net(features=graphs.ALL, **options):
    torch.manual_seed(0)
    made = IntentGraphNet(features, graphs.STEPS, 2, hidden=6, members=3, **options)
    made.train()(graphs.batch(features))
    return made.eval()


class _Task:
    """The parts of an `IntentTask` that `export` uses."""

    def __init__(self, net):
        self.net, self.horizon, self.threshold = net, 2, 0.5
        self.averaged = type("Average", (), {"module": net})


def compare(one, features, call):
    """Compares a program with a network on batches of several sizes."""
    alone = graphs.without_neighbours(graphs.batch(features, [0]))
    for graph in (graphs.batch(features), graphs.batch(features, [4]), alone):
        with torch.inference_mode():
            logits = one(graph)[..., graphs.STEPS : graphs.STEPS + 2]
            found = call(one.columns(graph))
        assert found.shape == (len(graph.window), 2)
        assert torch.allclose(found, logits.sigmoid().mean(0), atol=1e-6)


@pytest.mark.parametrize("features", [graphs.ALL, ("box", "neighbours")], ids=str)
def test_module_of_tensors_equals_the_network(features):
    one = net(features)
    module = export.program(_Task(one))
    compare(one, features, lambda given: module(**given))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize("features", [graphs.ALL, ("box", "neighbours")], ids=str)
def test_programs_equal_the_network_for_any_number_of_windows(tmp_path, kind, features):
    pytest.importorskip("onnxscript" if kind == "onnx" else "torch")
    one = net(features)
    call = export.runner(export.write_program(tmp_path, kind, _Task(one)))
    compare(one, features, call)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.slow
def test_program_that_differs_is_not_kept(tmp_path, monkeypatch):
    real = export.runner
    monkeypatch.setattr(export, "runner", lambda path: lambda given: real(path)(given) + 1e-3)
    with pytest.raises(DataError, match=r"differ by 1\.0e-03"):
        export.write_program(tmp_path, "torch", _Task(net()))
    assert not list(tmp_path.iterdir())


def test_other_networks_are_refused(tmp_path):
    with pytest.raises(DataError, match="EquivariantDDPAE cannot be exported"):
        export.write_program(tmp_path, "torch", load_weights("moving_mnist"))
