"""What the pictures say, read off the figures themselves."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox

from src.experiment import plots
from src.experiment.predictions import Predictions
from src.training.diagnostics import LayerState
from src.training.scoring import Score
from src.training.training_run import Epoch

Pixels = npt.NDArray[np.float64]


def answers(
    labels: list[int], predicted: list[int], probabilities: object, part: str = "test"
) -> Predictions:
    return Predictions(
        part, "", np.array(labels), np.array(predicted), np.asarray(probabilities, float)
    )


def history(epochs: int) -> list[Epoch]:
    return [
        Epoch(
            n,
            {"train": Score(1 / n, 1 - 1 / n), "val": Score(2 / n, 0.9 - 0.5 / n)},
            n,
            n,
            float(n),
            0.1,
            (),
        )
        for n in range(1, epochs + 1)
    ]


class Word(NamedTuple):
    """A word as it stands in a picture."""

    text: str
    box: Bbox  # what it covers, in the figure's pixels from the lower left corner
    colour: str

    @property
    def x(self) -> float:
        return float(self.box.x0 + self.box.x1) / 2

    @property
    def y(self) -> float:
        return float(self.box.y0 + self.box.y1) / 2


def words(axes: Axes) -> list[Word]:
    """Return all words drawn in axes, in the order of drawing."""
    found = []
    for group in axes.collections:
        if isinstance(group, plots.Words):
            places = group.get_offset_transform().transform(np.asarray(group.get_offsets()))
            colours = np.broadcast_to(np.asarray(group.get_facecolor()), (len(places), 4))
            for text, path, place, colour in zip(
                group.words, group.get_paths(), places, colours, strict=True
            ):
                box = path.transformed(group.get_transform()).get_extents().translated(*place)
                found.append(Word(text, box, to_hex(tuple(colour))))
    return found


class Tile(NamedTuple):
    """An image as it stands in a picture."""

    pixels: Pixels
    box: Bbox  # in the figure's pixels


def tiles(axes: Axes, free: float = np.nan) -> list[Tile]:
    """Return the images on a page in reading order; around them its canvas is ``free``."""
    drawn = axes.get_images()[0]
    canvas: Pixels = np.ma.filled(np.ma.asarray(drawn.get_array(), dtype=float), np.nan)
    empty = np.isnan(canvas) if np.isnan(free) else canvas == free
    taken = np.asarray(np.atleast_3d(~empty).any(axis=-1))
    left, right, bottom, top = drawn.get_extent()
    scale = np.array([(right - left) / canvas.shape[1], (bottom - top) / canvas.shape[0]])
    found = []
    for rows in runs(taken.any(axis=1)):
        for columns in runs(taken[rows].any(axis=0)):
            corners = np.array([(columns.start, rows.stop), (columns.stop, rows.start)]) * scale + (
                left,
                top,
            )
            found.append(Tile(canvas[rows, columns], Bbox(axes.transData.transform(corners))))
    return found


def runs(taken: npt.ArrayLike) -> list[slice]:
    """Return where uninterrupted stretches of True begin and end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(taken, int), [0]])))
    return [slice(start, stop) for start, stop in edges.reshape(-1, 2).tolist()]


def captions(axes: Axes, tile: Tile) -> list[str]:
    """Return what is written right above an image, from top to bottom."""
    above = [
        word
        for word in words(axes)
        if abs(word.x - (tile.box.x0 + tile.box.x1) / 2) < 1 and 0 < word.y - tile.box.y1 < 30
    ]
    return [word.text for word in sorted(above, key=lambda word: -word.y)]


def inside(axes: Axes) -> Bbox:
    """Return what a page's canvas covers, in the figure's pixels."""
    left, right, bottom, top = axes.get_images()[0].get_extent()
    return Bbox(axes.transData.transform([(left, bottom), (right, top)]))


def stretched(image: npt.NDArray[Any]) -> Pixels:
    """Return an image from 0 to 1."""
    return np.asarray((image - image.min()) / (image.max() - image.min()), float)


def test_curves_show_every_set_by_epoch_and_the_published_one_over_them() -> None:
    figure = plots.curves(history(5), {"train/loss": ([1, 5], [0.9, 0.2])})
    loss, accuracy = figure.axes
    assert [max(words(axes), key=lambda word: word.y).text for axes in figure.axes] == [
        "loss",
        "accuracy",
    ]
    drawn = {
        str(line.get_label()): np.asarray(line.get_xydata(), float) for line in loss.get_lines()
    }
    assert list(drawn) == ["train 0.2000", "val 0.4000", "published train/loss"]
    np.testing.assert_allclose(drawn["train 0.2000"], np.array([[n, 1 / n] for n in range(1, 6)]))
    np.testing.assert_allclose(drawn["val 0.4000"], np.array([[n, 2 / n] for n in range(1, 6)]))
    np.testing.assert_allclose(drawn["published train/loss"], np.array([[1, 0.9], [5, 0.2]]))
    drawn = {
        str(line.get_label()): np.asarray(line.get_xydata(), float) for line in accuracy.get_lines()
    }
    assert list(drawn) == ["train 0.8000", "val 0.8000"]
    np.testing.assert_allclose(
        drawn["val 0.8000"], np.array([[n, 0.9 - 0.5 / n] for n in range(1, 6)])
    )


def test_curves_are_named_each_behind_a_piece_of_its_line() -> None:
    axes = plots.curves(history(5), {"train/loss": ([1, 5], [0.9, 0.2])}).axes[0]
    _, pieces = (group for group in axes.collections if isinstance(group, LineCollection))
    named = {}
    for segment, colour in zip(pieces.get_segments(), np.asarray(pieces.get_color()), strict=True):
        (_, y), (end, _) = np.asarray(segment)
        behind = [
            word for word in words(axes) if 0 < word.box.x0 - end < 10 and abs(word.y - y) < 6
        ]
        named[" ".join(word.text for word in behind)] = to_hex(tuple(colour))
    assert named == {str(line.get_label()): to_hex(line.get_color()) for line in axes.get_lines()}
    assert named["train 0.2000"] == plots.COLOURS["train"]
    styles: Any = pieces.get_linestyle()
    assert [pattern is None for _, pattern in styles] == [
        True,
        True,
        False,
    ]  # the published one is dotted


@pytest.mark.parametrize("scale", [1e-7, 1e-3, 1, 1e7])
def test_numbers_stand_where_their_values_are(scale: float) -> None:
    epochs = [
        replace(e, scores={"val": Score(e.scores["val"].loss * scale, 0.5)}) for e in history(30)
    ]
    axes = plots.curves(epochs).axes[0]
    box, to_data = axes.bbox, axes.transData.inverted()
    below = [word for word in words(axes) if -20 < word.y - box.y0 < 0]
    beside = [word for word in words(axes) if word.box.x1 < box.x0 and word.y > box.y0 - 10]
    assert 3 <= len(below) <= 7
    assert 3 <= len(beside) <= 7
    at = [to_data.transform((word.x, word.y)) for word in (*below, *beside)]
    np.testing.assert_allclose(
        [float(word.text) for word in below], [x for x, _ in at[: len(below)]], atol=0.2
    )
    height = axes.get_ylim()[1] - axes.get_ylim()[0]
    np.testing.assert_allclose(
        [float(word.text) for word in beside], [y for _, y in at[len(below) :]], atol=height / 90
    )
    grid = next(
        group for group in axes.collections if isinstance(group, LineCollection)
    ).get_segments()
    level = [np.asarray(line)[0, 1] for line in grid if np.ptp(np.asarray(line)[:, 1]) == 0]
    assert all(
        np.isclose(level, float(word.text), rtol=1e-3, atol=0).any() or float(word.text) == 0
        for word in beside
    )


def test_a_single_epoch_is_a_point_one_can_see() -> None:
    axes = plots.curves(history(1)).axes[0]
    assert all(line.get_marker() == "o" for line in axes.get_lines())
    assert [word.text for word in words(axes) if -20 < word.y - axes.bbox.y0 < 0] == ["1"]
    assert all(line.get_marker() != "o" for line in plots.curves(history(2)).axes[0].get_lines())


def test_the_published_curve_is_drawn_with_every_seed_and_their_mean() -> None:
    ours = np.array([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]])
    (axes,) = plots.published_curve(ours, [1, 3], [0.2, 0.6], "relu", "train/accuracy").axes
    drawn = [np.asarray(line.get_xydata(), float) for line in axes.get_lines()]
    expected = [[*zip([1, 2, 3], curve, strict=True)] for curve in (*ours, [0.2, 0.3, 0.4])]
    for curve, points in zip(drawn, [*expected, [(1, 0.2), (3, 0.6)]], strict=True):
        np.testing.assert_allclose(curve, points)
    written = [word.text for word in words(axes)]
    assert {
        "relu: train/accuracy",
        "epoch",
        "each seed",
        "here, mean of 2 seeds",
        "published",
    } <= set(written)
    assert written.count("each seed") == 1


def test_confusion_counts_each_pair_of_true_and_predicted() -> None:
    predictions = answers([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0], np.eye(6, 3), "val")
    (axes,) = plots.confusion(predictions, 3).axes
    box = inside(axes)
    side = box.width / 3
    cells = {
        (int((box.y1 - word.y) / side), int((word.x - box.x0) / side)): (word.text, word.colour)
        for word in words(axes)
        if box.contains(word.x, word.y)
    }
    grey, black, white = "#888888", "#000000", "#ffffff"
    assert cells == {
        (0, 0): ("1", grey), (0, 1): ("1", black), (1, 1): ("1", grey), (2, 2): ("1", grey), (2, 0): ("2", white),
    }  # fmt: skip
    np.testing.assert_array_equal(
        axes.get_images()[0].get_array(), [[0, 1, 0], [0, 0, 0], [2, 0, 0]]
    )
    assert axes.get_images()[0].get_cmap().name == "Reds"
    assert axes.get_images()[0].get_clim() == (0, 2)
    assert max(words(axes), key=lambda word: word.y).text == "val: 3 of 6 wrong"
    predicted, true = axes.texts
    assert (predicted.get_text(), true.get_text()) == ("predicted", "true")
    assert axes.transData.transform(predicted.get_position())[1] < box.y0  # below the columns
    assert axes.transData.transform(true.get_position())[0] < box.x0  # beside the rows


@pytest.mark.parametrize(("classes", "named"), [(1, 1), (26, 26), (27, 14), (200, 25)])
def test_rows_and_columns_of_the_confusion_are_named_and_counts_are_left_out_where_they_would_not_fit(
    classes: int, named: int
) -> None:
    everyone = list(range(classes))
    (axes,) = plots.confusion(answers(everyone, everyone, np.eye(classes)), classes).axes
    box = inside(axes)
    side = box.width / classes
    columns = {int(word.text): (word.x - box.x0) / side for word in words(axes) if word.y < box.y0}
    rows = {int(word.text): (box.y1 - word.y) / side for word in words(axes) if word.x < box.x0}
    assert len(columns) == len(rows) == named
    np.testing.assert_allclose(list(columns.values()), [k + 0.5 for k in columns], atol=0.2)
    np.testing.assert_allclose(list(rows.values()), [k + 0.5 for k in rows], atol=0.2)
    assert sum(box.contains(word.x, word.y) for word in words(axes)) == (
        classes if classes <= 26 else 0
    )


def test_predictions_show_the_surest_errors_first_and_then_the_least_sure_right_ones() -> None:
    images = np.random.default_rng(0).integers(0, 255, (4, 6), dtype=np.uint8)
    probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]
    right_wrong_wrong_right = answers([0, 1, 0, 1], [0, 0, 1, 1], probabilities)
    (axes,) = plots.predictions(images, right_wrong_wrong_right, (2, 3), rows=2, columns=3).axes
    drawn = tiles(axes)
    assert [captions(axes, tile) for tile in drawn] == [
        ["1, is 0", "80%"],
        ["0, is 1", "60%"],
        ["1", "70%"],
        ["0", "90%"],
    ]
    for tile, i in zip(drawn, [2, 1, 3, 0], strict=True):
        np.testing.assert_allclose(tile.pixels, stretched(images[i]).reshape(2, 3))
    assert (axes.get_images()[0].get_cmap().name, axes.get_images()[0].get_clim()) == (
        "gray_r",
        (0, 1),
    )
    said = words(axes)[1:]
    assert {word.text: word.colour for word in said} == {
        "1, is 0": plots.WRONG, "80%": plots.WRONG, "0, is 1": plots.WRONG, "60%": plots.WRONG,
        "1": plots.RIGHT, "70%": plots.RIGHT, "0": plots.RIGHT, "90%": plots.RIGHT,
    }  # fmt: skip
    assert words(axes)[0].text.startswith(
        "test: wrong ones first, the surest leading; then right ones, the least sure"
    )


def test_a_page_of_predictions_holds_so_many_and_no_more() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=70).tolist()
    probabilities = rng.dirichlet(np.ones(10), 70)
    (axes,) = plots.predictions(
        rng.random((70, 16)), answers(labels, labels, probabilities), (4, 4)
    ).axes
    assert len(tiles(axes)) == 50
    (axes,) = plots.predictions(
        rng.random((1, 16)), answers([3], [3], probabilities[:1]), (4, 4)
    ).axes
    assert [captions(axes, tile)[0] for tile in tiles(axes)] == ["3"]


def test_a_page_is_as_wide_as_its_title_at_least() -> None:
    for figure in (
        plots.predictions(np.ones((1, 4)), answers([0], [0], [[1.0]]), (2, 2), rows=1, columns=1),
        plots.first_layer(np.ones((4, 1)), (2, 2)),
    ):
        (axes,) = figure.axes
        (tile,) = tiles(axes)
        title = words(axes)[0]
        assert 0 < title.box.x0 < title.box.x1 < figure.bbox.width
        assert (tile.box.x0 + tile.box.x1) / 2 == pytest.approx(title.x, abs=1)


@pytest.mark.parametrize(
    "shape", [(28, 28), (8, 8), (3, 4), (40, 10), (10, 40), (2, 2), (1, 4), (64, 64), (5, 5, 3)]
)
def test_images_keep_their_shape_and_words_their_distance(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((12, int(np.prod(shape)))), list(range(100, 112))
    images[:, 0], images[:, -1] = 0, 0.9  # the corners of a colour image are not white
    figure = plots.predictions(
        images, answers(labels, labels[::-1], rng.dirichlet(np.ones(112), 12)), shape
    )
    (axes,) = figure.axes
    drawn = tiles(axes, 1.0 if len(shape) == 3 else np.nan)
    assert len(drawn) == 12
    for tile in drawn:
        assert tile.box.width / tile.box.height == pytest.approx(shape[1] / shape[0])
        assert max(tile.box.width, tile.box.height) >= 60
        scale = tile.box.width / shape[1]
        assert scale == pytest.approx(round(scale))  # equally large pixels
    boxes = [word.box for word in words(axes)] + [tile.box for tile in drawn]
    page = Bbox.from_bounds(0, 0, figure.bbox.width, figure.bbox.height)
    for k, box in enumerate(boxes):
        assert page.containsx(box.x0)
        assert page.containsx(box.x1)
        assert page.containsy(box.y0)
        assert page.containsy(box.y1)
        assert box.count_overlaps(boxes[:k]) == 0


def test_a_line_of_features_is_a_bar_and_a_huge_image_is_thinned() -> None:
    rng = np.random.default_rng(0)
    line = rng.random((1, 30))
    (tile,) = tiles(plots.predictions(line, answers([0], [0], [[1.0]]), (1, 30)).axes[0])
    np.testing.assert_allclose(tile.pixels, stretched(line).repeat(len(tile.pixels), axis=0))
    assert tile.box.height > 10
    huge = rng.random((1, 200 * 300))
    (tile,) = tiles(plots.predictions(huge, answers([0], [0], [[1.0]]), (200, 300)).axes[0])
    np.testing.assert_allclose(tile.pixels, stretched(huge).reshape(200, 300)[::3, ::3])


def test_an_image_of_a_single_value_is_drawn_white() -> None:
    (tile,) = tiles(
        plots.predictions(np.full((1, 4), 7), answers([0], [0], [[1.0]]), (2, 2)).axes[0]
    )
    np.testing.assert_array_equal(tile.pixels, np.zeros((2, 2)))


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_colour_images_are_drawn_in_their_colours_and_those_of_unknown_channels_grey(
    channels: int,
) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 250, (3, 4 * channels), dtype=np.uint8)
    shape = (2, 2, channels)
    (axes,) = plots.predictions(images, answers([0, 1, 0], [0, 0, 0], [[0.9, 0.1]] * 3), shape).axes
    coloured = channels in (3, 4)
    for tile, i in zip(tiles(axes, 1.0 if coloured else np.nan), [1, 0, 2], strict=True):
        expected = stretched(images[i]).reshape(shape)
        np.testing.assert_allclose(
            tile.pixels, expected[..., :3] if coloured else expected.mean(axis=-1)
        )


@pytest.mark.parametrize(
    ("units", "drawn", "columns", "title"),
    [
        (1, 1, 1, "1 unit"),
        (10, 10, 8, "10 units"),
        (40, 40, 16, "40 units"),
        (128, 64, 16, "the first 64 of 128 units"),
    ],
)
def test_first_layer_draws_each_unit_weights_as_an_image(
    units: int, drawn: int, columns: int, title: str
) -> None:
    W = np.random.default_rng(0).normal(size=(12, units))
    (axes,) = plots.first_layer(W, (3, 4)).axes
    shown = tiles(axes)
    assert len(shown) == drawn
    assert len({tile.box.y0 for tile in shown}) == -(-drawn // columns)
    for k, tile in enumerate(shown):
        np.testing.assert_array_equal(tile.pixels, W[:, k].reshape(3, 4))
    assert words(axes)[0].text == f"first-layer weights, {title}"


def test_the_colours_of_weights_are_explained_and_white_is_0() -> None:
    W = np.array([[-0.5], [0.25], [0.0], [0.1]])
    (axes,) = plots.first_layer(W, (2, 2)).axes
    weights, scale = axes.get_images()
    for image in (weights, scale):
        assert image.get_clim() == (-0.5, 0.5)
        assert image.get_cmap().name == "RdBu_r"  # blue, white, red
    assert np.ptp(np.asarray(scale.get_array()), axis=0).max() == 0
    np.testing.assert_allclose(np.asarray(scale.get_array())[0, [0, -1]], [-0.5, 0.5])
    (left, y), (right, _) = axes.transData.transform(np.reshape(scale.get_extent(), (2, 2)).T)
    least, most = (word for word in words(axes)[1:] if abs(word.y - y) < 20)
    assert (least.text, most.text) == ("−0.5", "0.5")
    assert least.box.x1 < left < right < most.box.x0


def test_weights_of_colour_images_are_drawn_by_their_mean() -> None:
    W = np.random.default_rng(0).normal(size=(12, 2))
    first, second = tiles(plots.first_layer(W, (2, 2, 3)).axes[0])
    np.testing.assert_allclose(first.pixels, W[:, 0].reshape(2, 2, 3).mean(axis=-1))
    np.testing.assert_allclose(second.pixels, W[:, 1].reshape(2, 2, 3).mean(axis=-1))


def test_words_have_the_shapes_of_their_letters_and_stand_as_asked() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    for align, edge in ((0, "x0"), (0.5, "x"), (1, "x1")):
        group = plots.Words(axes, ["7, is 9", "0"], [(0.5, 0.5), (0.2, 0.2)], 8, align=align)
        for text, path in zip(group.words, group.get_paths(), strict=True):
            np.testing.assert_allclose(
                np.diff(path.vertices, axis=0),
                np.diff(TextPath((0, 0), text, size=8).vertices, axis=0),
            )
            box = path.get_extents()
            assert {"x0": box.x0, "x": (box.x0 + box.x1) / 2, "x1": box.x1}[edge] == pytest.approx(
                0, abs=0.01
            )
        digit = group.get_paths()[1].get_extents()
        assert digit.y0 + digit.y1 == pytest.approx(0, abs=0.1)  # as high above its place as below


def every_picture() -> list[Figure]:
    rng = np.random.default_rng(0)
    some = answers([0, 1, 1], [0, 1, 0], rng.dirichlet([1, 1], 3))
    images = rng.random((3, 16))
    return [
        plots.curves(history(3)),
        plots.confusion(some, 2),
        plots.predictions(images, some, (4, 4)),
        plots.first_layer(rng.normal(size=(16, 5)), (4, 4)),
    ]


@pytest.mark.parametrize("k", range(4))
def test_every_word_is_drawn_in_its_place_and_colour(k: int) -> None:
    figure = every_picture()[k]
    figure.canvas.draw()
    picture = np.flipud(np.asarray(cast(Any, figure.canvas).buffer_rgba())[..., :3].astype(int))
    written = [word for axes in figure.axes for word in words(axes)]
    assert len(written) > 2
    for word in written:
        left, bottom, right, top = (int(edge) for edge in word.box.extents)
        drawn = picture[max(0, bottom) : top + 1, max(0, left) : right + 1]
        colour = np.array([round(255 * share) for share in to_rgb(word.colour)])
        assert np.abs(drawn - colour).sum(axis=-1).min() < 150
        assert np.ptp(drawn.sum(axis=-1)) > 100  # and around it something else


def test_equal_figures_are_saved_as_equal_bytes_in_threads_too(tmp_path: Path) -> None:
    def draw(folder: Path) -> list[bytes]:
        folder.mkdir()
        for k, figure in enumerate(every_picture()):
            plots.save(figure, folder / f"{k}.png")
        return [path.read_bytes() for path in sorted(folder.iterdir())]

    alone = draw(tmp_path / "alone")
    with ThreadPoolExecutor(4) as pool:
        assert all(
            together == alone for together in pool.map(draw, [tmp_path / str(k) for k in range(4)])
        )


def test_layers_are_drawn_by_epoch_with_what_they_have() -> None:
    hidden, out = (
        LayerState(4, 2, None, False, 1e-3, 0.5, 1.0),
        LayerState(3, None, None, False, 2e-3, 0.25, 1.0),
    )
    start = (replace(hidden, saturated=0), out)
    figure = plots.layers({0: start, 1: (hidden, out)})
    saturated, update, gradient, empty = figure.axes  # no unit of these can die
    assert saturated.get_title() == "share of saturated units"
    assert [line.get_label() for line in saturated.get_lines()] == ["layer 1"]
    np.testing.assert_array_equal(
        saturated.get_lines()[0].get_xydata(), np.array([[0, 0.0], [1, 0.5]])
    )
    assert [np.asarray(line.get_xdata()).tolist() for line in update.get_lines()] == [
        [0, 1],
        [0, 1],
    ]
    np.testing.assert_array_equal(gradient.get_lines()[1].get_ydata(), np.array([0.25, 0.25]))
    assert not empty.axison
