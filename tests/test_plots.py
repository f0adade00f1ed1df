"""What the pictures say, read off the figures themselves."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from src import plots
from src.diagnostics import LayerState
from src.predictions import Predictions
from src.training import Epoch, Score


def answers(labels: list[int], predicted: list[int], probabilities: object, part: str = "test") -> Predictions:
    return Predictions(part, "", np.array(labels), np.array(predicted), np.asarray(probabilities, float))


def history(epochs: int) -> list[Epoch]:
    return [
        Epoch(n, {"train": Score(1 / n, 1 - 1 / n), "val": Score(2 / n, 0.9 - 0.5 / n)}, n, n, float(n), 0.1, ())
        for n in range(1, epochs + 1)
    ]


def test_curves_show_every_set_by_epoch_and_the_published_one_over_them() -> None:
    figure = plots.curves(history(5), {"train/loss": ([1, 5], [0.9, 0.2])})
    loss, accuracy = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["loss", "accuracy"]
    drawn = {str(line.get_label()): np.asarray(line.get_xydata(), float) for line in loss.get_lines()}
    assert list(drawn) == ["train 0.2000", "val 0.4000", "published train/loss"]
    np.testing.assert_allclose(drawn["train 0.2000"], np.array([[n, 1 / n] for n in range(1, 6)]))
    np.testing.assert_allclose(drawn["published train/loss"], np.array([[1, 0.9], [5, 0.2]]))
    assert len(accuracy.get_lines()) == 2


def test_a_single_epoch_is_a_point_one_can_see() -> None:
    assert all(line.get_marker() == "o" for line in plots.curves(history(1)).axes[0].get_lines())


def test_confusion_counts_each_pair_of_true_and_predicted() -> None:
    predictions = answers([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0], np.eye(6, 3), "val")
    (axes,) = plots.confusion(predictions, 3).axes
    cells = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1", (2, 0): "2"}
    assert axes.get_title() == "val: 3 of 6 wrong"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_predictions_show_the_surest_errors_first_and_then_the_least_sure_right_ones() -> None:
    images = np.arange(4 * 6).reshape(4, 6)
    probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]
    right_wrong_wrong_right = answers([0, 1, 0, 1], [0, 0, 1, 1], probabilities)
    figure = plots.predictions(images, right_wrong_wrong_right, (2, 3), rows=2, columns=3)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["1, is 0\n80%", "0, is 1\n60%", "1\n70%", "0\n90%", "", ""]
    np.testing.assert_array_equal(figure.axes[0].get_images()[0].get_array(), images[2].reshape(2, 3))


@pytest.mark.parametrize(("units", "drawn"), [(1, 1), (10, 10), (128, 64)])
def test_first_layer_draws_each_unit_weights_as_an_image(units: int, drawn: int) -> None:
    W = np.random.default_rng(0).normal(size=(12, units))
    figure = plots.first_layer(W, (3, 4))
    images = [
        axes.get_images()[0].get_array()
        for axes in figure.axes
        if axes.get_images() and axes.get_label() != "<colorbar>"
    ]
    assert len(images) == drawn
    for k, image in enumerate(images):
        np.testing.assert_array_equal(image, W[:, k].reshape(3, 4))


def test_colour_images_are_drawn_too() -> None:
    rng = np.random.default_rng(0)
    plots.first_layer(rng.normal(size=(12, 2)), (2, 2, 3))
    images = rng.integers(0, 255, (3, 12), dtype=np.uint8)
    plots.predictions(images, answers([0, 1, 0], [0, 0, 0], rng.dirichlet([1, 1], 3)), (2, 2, 3))


def test_equal_figures_are_saved_as_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        plots.save(plots.curves(history(3)), tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_layers_are_drawn_by_epoch_with_what_they_have() -> None:
    hidden, out = LayerState(4, 2, None, False, 1e-3, 0.5, 1.0), LayerState(3, None, None, False, 2e-3, 0.25, 1.0)
    start = (replace(hidden, saturated=0), out)
    figure = plots.layers({0: start, 1: (hidden, out)})
    saturated, update, gradient, empty = figure.axes  # no unit of these can die
    assert saturated.get_title() == "share of saturated units"
    assert [line.get_label() for line in saturated.get_lines()] == ["layer 1"]
    np.testing.assert_array_equal(saturated.get_lines()[0].get_xydata(), np.array([[0, 0.0], [1, 0.5]]))
    assert [np.asarray(line.get_xdata()).tolist() for line in update.get_lines()] == [[0, 1], [0, 1]]
    np.testing.assert_array_equal(gradient.get_lines()[1].get_ydata(), np.array([0.25, 0.25]))
    assert not empty.axison
