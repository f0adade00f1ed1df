"""What the pictures show, read off the figures, and what the command that draws them does."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import image as image_file
from matplotlib import style as matplotlib_style
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from mlflow import MlflowClient

from docs.draw import activations, draw_activations
from src import pictures
from src.nn.layers import Activation
from src.pictures import draw_run
from src.runs.history import columns, read_history
from src.runs.pictures import style
from src.runs.pictures.charts import curves, layers, published_curve
from src.runs.pictures.confusion import confusion
from src.runs.pictures.images import chosen_samples, first_layer, predictions, samples
from src.runs.predictions import Predictions
from src.runs.record import Record
from src.support.errors import DataError, UserError
from tests.conftest import ROOT, Ended
from tests.test_resume import run_id_of

Floats = npt.NDArray[np.float64]


def answers(
    labels: list[int], predicted: list[int], probabilities: object, part: str = "test"
) -> Predictions:
    return Predictions(
        part, "", np.array(labels), np.array(predicted), np.asarray(probabilities, float)
    )


def history(epochs: int) -> dict[str, Floats]:
    n = np.arange(1.0, epochs + 1)
    return {
        "epoch": n,
        "train/loss": 1 / n,
        "train/accuracy": 1 - 1 / n,
        "val/loss": 2 / n,
        "val/accuracy": 0.9 - 0.5 / n,
    }


def lines(axes: Axes) -> dict[str, list[list[float]]]:
    """Return the points of each line in axes by its label."""
    return {
        str(line.get_label()): np.asarray(line.get_xydata(), float).tolist()
        for line in axes.get_lines()
    }


def drawn(axes: Axes) -> list[Floats]:
    """Return the images in axes, in the order of drawing."""
    return [np.asarray(image.get_array(), float) for image in axes.get_images()]


def captions(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def title(figure: Figure) -> str:
    return figure.get_suptitle()


def stretched(image: npt.NDArray[Any]) -> Floats:
    """Return an image from 0 to 1."""
    return np.asarray((image - image.min()) / (image.max() - image.min()), float)


# --- charts -------------------------------------------------------------------------------------


def test_curves_show_every_set_by_epoch_and_the_published_one_over_them() -> None:
    figure = curves(history(5), {"train/loss": ([1, 5], [0.9, 0.2])})
    loss, accuracy = figure.axes
    assert [axes.get_title("left") for axes in figure.axes] == ["loss", "accuracy"]
    assert lines(loss) == {
        "train 0.2000": [[n, 1 / n] for n in range(1, 6)],
        "val 0.4000": [[n, 2 / n] for n in range(1, 6)],
        "published train/loss": [[1, 0.9], [5, 0.2]],
    }
    assert lines(accuracy) == {
        "train 0.8000": [[n, 1 - 1 / n] for n in range(1, 6)],
        "val 0.8000": [[n, 0.9 - 0.5 / n] for n in range(1, 6)],
    }
    colours = [line.get_color() for line in loss.get_lines()]
    assert colours == [style.BLUE, style.ORANGE, style.PUBLISHED]
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == list(lines(loss))


def test_a_single_epoch_is_a_point_one_can_see() -> None:
    assert all(line.get_marker() == "o" for line in curves(history(1)).axes[0].get_lines())
    assert all(line.get_marker() != "o" for line in curves(history(2)).axes[0].get_lines())


def test_an_infinite_loss_is_a_gap_and_leaves_the_others_readable() -> None:
    found = history(4)
    found["train/loss"] = np.array([1, 2, np.inf, np.nan])
    axes = curves(found).axes[0]
    values = np.asarray(axes.get_lines()[0].get_ydata(), float)
    np.testing.assert_array_equal(values, [1, 2, np.nan, np.nan])
    assert axes.get_ylim()[1] < 3


def test_the_published_curve_is_drawn_with_every_seed_and_their_mean() -> None:
    ours = np.array([[0.1, 0.2, 0.3], [0.3, 0.4, 0.5]])
    (axes,) = published_curve(ours, [1, 3], [0.2, 0.6], "relu", "train/accuracy").axes
    points = [np.asarray(line.get_xydata(), float) for line in axes.get_lines()]
    expected = [[*zip([1, 2, 3], curve, strict=True)] for curve in (*ours, [0.2, 0.3, 0.4])]
    for found, curve in zip(points, [*expected, [(1, 0.2), (3, 0.6)]], strict=True):
        np.testing.assert_allclose(found, curve)
    assert axes.get_title("left") == "relu: train/accuracy"
    legend = axes.get_legend()
    assert legend is not None
    named = [text.get_text() for text in legend.get_texts()]
    assert named == ["each seed", "ours, mean of 2 seeds", "published"]


def test_layers_are_drawn_by_epoch_with_what_was_measured() -> None:
    start = {"layer1/saturated": 0.0, "layer1/update_ratio": 1e-3, "layer2/update_ratio": 2e-3}
    figure = layers({0: start, 3: {**start, "layer1/saturated": 0.5}})
    saturated, update = figure.axes
    assert saturated.get_title("left") == "share of saturated units"
    assert lines(saturated) == {"layer 1": [[0, 0.0], [3, 0.5]]}
    assert lines(update) == {"layer 1": [[0, 1e-3], [3, 1e-3]], "layer 2": [[0, 2e-3], [3, 2e-3]]}
    assert update.get_yscale() == "log"
    still = layers({0: {"layer1/gradient_norm": 0.0}})  # no logarithm of 0
    assert still.axes[0].get_yscale() == "linear"
    assert not still.axes[1].axison


# --- confusion ----------------------------------------------------------------------------------


def test_confusion_counts_each_pair_of_true_and_predicted() -> None:
    labels, predicted = [0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 0, 0]
    (axes,) = confusion(answers(labels, predicted, np.eye(6, 3), "val"), 3).axes
    cells = {text.get_position()[::-1]: text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "1", (0, 1): "1", (1, 1): "1", (2, 2): "1", (2, 0): "2"}
    colours = {text.get_position()[::-1]: text.get_color() for text in axes.texts}
    assert colours == {
        (0, 0): style.MUTED, (0, 1): "black", (1, 1): style.MUTED, (2, 2): style.MUTED,
        (2, 0): "white",
    }  # fmt: skip
    errors: Any = np.ma.asarray(axes.get_images()[0].get_array())
    np.testing.assert_array_equal(errors.filled(0), [[0, 1, 0], [0, 0, 0], [2, 0, 0]])
    assert axes.get_title("left") == "val: 3 of 6 wrong"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


@pytest.mark.parametrize(("classes", "named"), [(1, 1), (26, 26), (27, 14), (200, 25)])
def test_many_classes_have_colours_for_counts_and_fewer_names(classes: int, named: int) -> None:
    everyone = list(range(classes))
    axes, *legend = confusion(answers(everyone, everyone, np.eye(classes)), classes).axes
    assert len(axes.get_xticks()) == len(axes.get_yticks()) == named
    assert len(axes.texts) == (classes if classes <= 26 else 0)
    assert len(legend) == (classes > 26)


# --- pages of images ----------------------------------------------------------------------------


def test_predictions_show_the_most_confident_errors_first_then_the_least_confident_right_ones() -> (
    None
):
    images = np.random.default_rng(0).integers(0, 255, (4, 6), dtype=np.uint8)
    probabilities = [[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]]
    right_wrong_wrong_right = answers([0, 1, 0, 1], [0, 0, 1, 1], probabilities)
    figure = predictions(images, right_wrong_wrong_right, (2, 3))
    (axes,) = figure.axes
    assert captions(axes) == ["1, true 0\n80%", "0, true 1\n60%", "1\n70%", "0\n90%"]
    for image, i in zip(drawn(axes), [2, 1, 3, 0], strict=True):
        np.testing.assert_allclose(image, stretched(images[i]).reshape(2, 3))
    colours = [text.get_color() for text in axes.texts]
    assert colours == [style.WRONG, style.WRONG, style.RIGHT, style.RIGHT]
    assert title(figure).startswith("test: 2 of 4 wrong\n")


def test_samples_are_spread_over_the_training_set_and_carry_their_own_labels() -> None:
    labels = np.repeat(np.arange(10), 30)  # sorted, as some files are
    images = np.tile(np.arange(4.0), (300, 1)) + np.eye(4)[labels % 4]
    figure = samples(images, labels, (2, 2))
    (axes,) = figure.axes
    assert title(figure) == "train: 50 of 300 samples, evenly spaced"
    named = [int(caption) for caption in captions(axes)]
    assert set(named) == set(range(10))
    for image, label in zip(drawn(axes), named, strict=True):
        expected = stretched(np.arange(4.0) + np.eye(4)[label % 4])
        np.testing.assert_allclose(image.ravel(), expected)
    few = samples(images[:7], labels[:7], (2, 2))
    assert len(drawn(few.axes[0])) == 7


def test_a_page_holds_so_many_and_no_more() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=70).tolist()
    some = answers(labels, labels, rng.dirichlet(np.ones(10), 70))
    assert len(drawn(predictions(rng.random((70, 16)), some, (4, 4)).axes[0])) == 50


@pytest.mark.parametrize(
    "shape", [(28, 28), (8, 8), (3, 4), (40, 10), (10, 40), (2, 2), (1, 30), (200, 300), (5, 5, 3)]
)
def test_images_keep_their_shape_and_captions_their_distance(
    shape: tuple[int, ...], tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    images, labels = rng.random((12, int(np.prod(shape)))), list(range(100, 112))
    some = answers(labels, labels[::-1], rng.dirichlet(np.ones(112), 12))
    figure = predictions(images, some, shape)
    style.save(figure, tmp_path / "x.png")  # which lays it out
    (axes,) = figure.axes
    boxes = [image.get_window_extent() for image in axes.get_images()]
    assert len(boxes) == 12
    for box in boxes:
        bar = shape[0] == 1  # a line of features is drawn as a bar that can be seen
        expected = 4 if bar else shape[1] / shape[0]
        assert box.width / box.height == pytest.approx(expected, rel=0.03)
        assert max(box.width, box.height) > 60
    boxes += [text.get_window_extent() for text in axes.texts]
    for k, box in enumerate(boxes):
        assert box.count_overlaps(boxes[:k]) == 0


def test_an_image_of_a_single_value_is_drawn_white() -> None:
    figure = predictions(np.full((1, 4), 7), answers([0], [0], [[1.0]]), (2, 2))
    np.testing.assert_array_equal(drawn(figure.axes[0])[0], np.zeros((2, 2)))
    assert figure.axes[0].get_images()[0].get_cmap().name == "gray_r"


@pytest.mark.parametrize("channels", [2, 3, 4, 5])
def test_colour_images_are_drawn_in_their_colours_and_unknown_channels_grey(channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 250, (3, 4 * channels), dtype=np.uint8)
    shape = (2, 2, channels)
    figure = predictions(images, answers([0, 1, 0], [0, 0, 0], [[0.9, 0.1]] * 3), shape)
    for image, i in zip(drawn(figure.axes[0]), [1, 0, 2], strict=True):
        values = stretched(images[i]).reshape(shape)
        expected = values[..., :3] if channels in (3, 4) else values.mean(axis=-1)
        np.testing.assert_allclose(image, expected)


@pytest.mark.parametrize(
    ("units", "count", "columns", "named"),
    [
        (1, 1, 1, "1 unit"),
        (10, 10, 8, "10 units"),
        (40, 40, 16, "40 units"),
        (128, 64, 16, "the first 64 of 128 units"),
    ],
)
def test_first_layer_draws_the_weights_of_each_unit_as_an_image(
    units: int, count: int, columns: int, named: str
) -> None:
    W = np.random.default_rng(0).normal(size=(12, units))
    figure = first_layer(W, (3, 4))
    axes, _ = figure.axes
    assert title(figure) == f"first-layer weights: {named}"
    assert len(drawn(axes)) == count
    assert len({image.get_extent()[0] for image in axes.get_images()}) == columns
    for k, image in enumerate(drawn(axes)):
        np.testing.assert_array_equal(image, W[:, k].reshape(3, 4))


def test_the_colours_of_weights_are_explained_and_white_is_0() -> None:
    figure = first_layer(np.array([[-0.5], [0.25], [0.0], [0.1]]), (2, 2))
    axes, scale = figure.axes
    (image,) = axes.get_images()
    assert image.get_clim() == (-0.5, 0.5)
    assert image.get_cmap().name == "RdBu_r"  # blue, white, red
    assert scale.get_ylim() == (-0.5, 0.5)
    assert scale.get_ylabel() == "weight"


def test_weights_of_colour_images_are_drawn_by_their_mean() -> None:
    W = np.random.default_rng(0).normal(size=(12, 2))
    first, second = drawn(first_layer(W, (2, 2, 3)).axes[0])
    np.testing.assert_allclose(first, W[:, 0].reshape(2, 2, 3).mean(axis=-1))
    np.testing.assert_allclose(second, W[:, 1].reshape(2, 2, 3).mean(axis=-1))


def test_chosen_samples_show_the_probabilities_of_their_classes() -> None:
    rng = np.random.default_rng(0)
    images, probabilities = rng.random((20, 4)), rng.dirichlet(np.ones(12), 20)
    predicted = probabilities.argmax(axis=1).tolist()
    labels = [*predicted]
    labels[3] = (labels[3] + 1) % 12
    figure = chosen_samples(images, answers(labels, predicted, probabilities), [17, 3], (2, 2))
    first, second, first_bars, second_bars = figure.axes
    assert first.get_title("left") == f"test sample 17\n{predicted[17]}"
    assert second.get_title("left") == f"test sample 3\n{predicted[3]}, true {labels[3]}"
    np.testing.assert_allclose(drawn(second)[0], stretched(images[3]).reshape(2, 2))
    for axes, number in ((first_bars, 17), (second_bars, 3)):
        heights = {
            int(label.get_text()): bar.get_height()  # type: ignore[attr-defined]
            for label, bar in zip(axes.get_xticklabels(), axes.patches, strict=True)
        }
        highest = sorted(np.argsort(probabilities[number])[-10:].tolist())
        assert heights == {k: probabilities[number, k] for k in highest}
    at = sorted(heights).index(predicted[3])
    assert to_hex(second_bars.patches[at].get_facecolor()) == style.WRONG.lower()


# --- the look -----------------------------------------------------------------------------------


def every_picture() -> list[Figure]:
    rng = np.random.default_rng(0)
    some = answers([0, 1, 1], [0, 1, 0], rng.dirichlet([1, 1], 3))
    images = rng.random((3, 16))
    found = [
        curves(history(3), {"train/loss": ([1, 3], [1.0, 0.3])}),
        layers({0: {"layer1/dead": 0.5, "layer1/update_ratio": 1e-3}}),
        confusion(some, 2),
        predictions(images, some, (4, 4)),
        samples(images, np.array([0, 1, 1]), (4, 4)),
        chosen_samples(images, some, [0, 2], (4, 4)),
        first_layer(rng.normal(size=(16, 5)), (4, 4)),
    ]
    for figure in found:
        style.add_caption(figure, "a name, " * 50, "setting 1, " * 40)
    return [*found, published_curve(np.ones((2, 3)), [1, 3], [1, 2], "relu", "train/loss")]


def texts(figure: Figure) -> list[Text]:
    found: list[Any] = figure.findobj(Text)
    return [text for text in found if text.get_visible() and text.get_text()]


@pytest.mark.parametrize("k", range(8))
def test_nothing_reaches_out_of_the_picture(k: int, tmp_path: Path) -> None:
    figure = every_picture()[k]
    style.save(figure, tmp_path / "x.png")
    pixels = image_file.imread(tmp_path / "x.png")[..., :3]
    assert pixels.min() < 0.5  # something is drawn
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert (edge == 1).all()


def test_the_caption_holds_name_and_settings_as_they_are(tmp_path: Path) -> None:
    figure = confusion(answers([0], [0], [[1.0]]), 1)
    style.add_caption(figure, "lr=$x^2$ 数", "784 ─ 10, seed 0")
    assert figure.get_supxlabel() == "lr=$x^2$ 数\n784 ─ 10, seed 0"
    caption = next(text for text in texts(figure) if "lr=" in text.get_text())
    assert not caption.get_parse_math()
    style.save(figure, tmp_path / "x.png")  # without a warning about the letter


@pytest.mark.slow
def test_equal_figures_are_saved_as_equal_bytes_whatever_style_the_user_has(
    tmp_path: Path,
) -> None:
    def draw(name: str) -> list[bytes]:
        found = []
        for figure in every_picture():
            style.save(figure, tmp_path / name)
            found.append((tmp_path / name).read_bytes())
        return found

    ours = draw("ours.png")
    with matplotlib_style.context(["dark_background", {"font.size": 20, "savefig.dpi": 30}]):
        before = dict(mpl.rcParams)
        theirs = draw("theirs.png")
        assert dict(mpl.rcParams) == before
    assert ours == theirs
    assert (
        "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()
    )


# --- history ------------------------------------------------------------------------------------


def test_history_is_read_by_column_and_a_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.csv"
    assert read_history(tmp_path) == []
    path.write_text("epoch,train/loss,layer1/dead,time\n")
    assert read_history(tmp_path) == []
    path.write_text("epoch,train/loss,layer1/dead,time\n1,0.5,0.25,7\n2,0.25,,8\n3,0.1")
    found = columns(read_history(tmp_path))
    assert list(found) == ["epoch", "train/loss", "layer1/dead", "time"]
    np.testing.assert_array_equal(found["epoch"], [1, 2])
    np.testing.assert_array_equal(found["layer1/dead"], [0.25, np.nan])
    path.write_text("epoch,train/loss,time\n1,x,7\n")
    with pytest.raises(DataError, match=r"history\.csv: not the history of a run .*'x'.*remove it"):
        read_history(tmp_path)


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def draw(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Ended]:
    """Call the command in this process."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["pictures", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            pictures.main()
        captured = capfd.readouterr()
        return Ended(tmp_path, int(ended.value.code or 0), captured.out, captured.err)

    return call


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.png")}


ALL = {"samples", "curves", "confusion", "predictions", "first_layer"}


@pytest.mark.slow
def test_pictures_drawn_later_are_those_that_the_run_drew(finished: Ended, tmp_path: Path) -> None:
    (folder,) = finished.folders
    paths = draw_run(folder, into=tmp_path / "new")
    assert {path.stem for path in paths} == names(folder) == names(tmp_path / "new") == ALL
    for path in paths:
        assert path.read_bytes() == (folder / path.name).read_bytes()


def test_a_run_is_found_by_its_id_and_samples_are_shown_with_their_probabilities(
    finished: Ended, draw: Callable[..., Ended], tmp_path: Path
) -> None:
    (folder,) = finished.folders
    run_id = run_id_of(folder)
    chosen = ("--samples", "0,100, 17", "--into", tmp_path / "a")
    ended = draw(run_id, "--outputs", finished.outputs, *chosen)
    assert (ended.code, ended.err) == (0, "")
    assert names(tmp_path / "a") == ALL | {"chosen_samples"}
    kept = Predictions.load(folder / "predictions.npz")
    for number in (0, 100, 17):
        probability = f"{kept.probabilities[number].max():.1%}"
        expected = f"test {number:<7} {kept.predicted[number]} with {probability}: "
        assert expected.split() == ended.out.splitlines()[(0, 100, 17).index(number)].split()[:5]
    assert f"picture     {tmp_path / 'a' / 'curves.png'}" in ended.out


@pytest.mark.slow
def test_pictures_are_logged_to_mlflow_when_asked(
    swept: Ended, draw: Callable[..., Ended], tmp_path: Path
) -> None:
    folder = next(f for f in swept.folders if Record.load(f).status == "FINISHED")
    ended = draw(folder, "--log", "--into", tmp_path, "--outputs", swept.outputs)
    assert (ended.code, ended.err) == (0, "")
    client, run_id = MlflowClient(swept.store), run_id_of(folder)
    logged = {Path(item.path).stem for item in client.list_artifacts(run_id, "pictures")}
    assert logged == ALL


@pytest.mark.slow
def test_a_sweep_draws_no_run_by_itself_and_a_failed_run_has_what_can_be_drawn(
    swept: Ended, draw: Callable[..., Ended], tmp_path: Path
) -> None:
    failed = [f for f in swept.folders if Record.load(f).status == "FAILED"]
    done = [f for f in swept.folders if Record.load(f).status == "FINISHED"]
    assert failed
    ended = draw(failed[0], done[0], "--into", tmp_path)
    assert (ended.code, ended.err) == (0, "")
    sweep = failed[0].parent.name
    assert names(tmp_path / sweep / done[0].name) == ALL
    drawn = names(tmp_path / sweep / failed[0].name)
    assert {"samples"} <= drawn <= {"samples", "curves"}
    ended = draw(failed[0], "--samples", "0", "--into", tmp_path)
    assert ended.code == 2
    assert "holds no predictions.npz, since the run did not finish" in ended.err


@pytest.mark.slow
def test_layers_are_drawn_where_they_were_diagnosed(
    invoke: Callable[..., Ended], tmp_path: Path
) -> None:
    (folder,) = invoke("epochs=3", "diagnose=1", "debug=fast").folders
    assert "layers" in names(folder)
    (path,) = (path for path in draw_run(folder, into=tmp_path / "n") if path.stem == "layers")
    assert path.read_bytes() == (folder / "layers.png").read_bytes()


def test_other_data_than_that_of_the_run_is_refused(finished: Ended, tmp_path: Path) -> None:
    (folder,) = finished.folders
    (tmp_path / ".hydra").mkdir()
    text = (folder / ".hydra" / "config.yaml").read_text()
    (tmp_path / ".hydra" / "config.yaml").write_text(text)
    Predictions.load(folder / "predictions.npz").save(tmp_path / "predictions.npz")
    assert {path.stem for path in draw_run(tmp_path)} == {"samples", "confusion", "predictions"}
    kept = Predictions.load(folder / "predictions.npz")
    dataclasses.replace(kept, samples="0" * 32).save(tmp_path / "predictions.npz")
    with pytest.raises(DataError, match="its test samples differ from those that digits holds now"):
        draw_run(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: there is no such folder: give the folder of a run or its id"),
        (["0" * 32, "--outputs", "nowhere"], "there is no MLflow store"),
        (["0" * 32, "--outputs", "OUTPUTS"], "no run in the MLflow store has this id"),
        (["OUTPUTS"], "give the folder of a run, such as one of those in outputs/runs"),
        (["OUTPUTS/runs"], "give one of the runs in it, such as "),
        (["RUN", "--samples", "1,x"], "1,x is not a list of sample numbers: give whole numbers"),
        (["RUN", "--samples", "7,360"], "360 is not in the test set of "),
        (["RUN", "--samples", "0," * 60 + "1"], "61 are too many: choose up to 60"),
        (["RUN", "--into", "/dev/null/x"], "/dev/null/x: cannot be written to"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_what_is_wrong_is_said_and_the_exit_code_is_2(
    arguments: list[str], message: str, finished: Ended, draw: Callable[..., Ended]
) -> None:
    (folder,) = finished.folders
    places = {"RUN": str(folder), "OUTPUTS": str(finished.outputs)}
    before = {path.name for path in folder.iterdir()}
    for name, place in places.items():
        arguments = [argument.replace(name, place) for argument in arguments]
    ended = draw(*arguments)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err
    assert {path.name for path in folder.iterdir()} == before
    assert not (Path.cwd() / "nowhere").exists()


@pytest.mark.slow
def test_one_wrong_run_does_not_keep_the_others_from_being_drawn(
    finished: Ended, draw: Callable[..., Ended], tmp_path: Path
) -> None:
    ended = draw("nowhere", *finished.folders, "--into", tmp_path)
    assert ended.code == 2
    assert names(tmp_path / "runs" / finished.folders[0].name) == ALL


def test_a_configuration_that_no_longer_fits_and_data_that_is_gone_are_said(
    finished: Ended, tmp_path: Path
) -> None:
    kept = (finished.folders[0] / ".hydra" / "config.yaml").read_text()
    (tmp_path / ".hydra").mkdir()
    path = tmp_path / ".hydra" / "config.yaml"
    for text, message in (
        (kept + "\nolder: 1\n", r"config\.yaml: older: no such key"),
        ("- 1\n", "holds no settings by name"),
        ("a: [\n", "cannot be read"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            draw_run(tmp_path)


@pytest.mark.slow
def test_data_that_is_gone_is_named(invoke: Callable[..., Ended], tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = np.random.default_rng(0).integers(0, 255, (60, 16))
    table.write_text("".join(f"{k % 3},{','.join(map(str, r))}\n" for k, r in enumerate(rows)))
    settings = ("model.inputs=16", "data.split.val=10", "data.split.test=10", "epochs=1")
    ended = invoke("data=csv", f"data.path={table}", *settings)
    assert ended.code == 0, ended.err
    table.unlink()
    script = f"from src.pictures import *; draw_run(Path({str(ended.folders[0])!r}))"
    gone = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "DataError" in gone.stderr
    assert f"(the data of {ended.folders[0]})" in gone.stderr


def test_help_does_not_wait_for_heavy_libraries() -> None:
    script = (
        "import sys; from src.pictures import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'numpy', 'matplotlib', 'mlflow', 'hydra', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "exit codes: 0 all drawn, 2" in ended.stdout


# --- the documentation --------------------------------------------------------------------------


def test_the_documentation_draws_every_activation_with_its_derivative() -> None:
    known = {cls for cls in Activation.__subclasses__() if cls.__module__ == "src.nn.layers"}
    chosen = activations()
    assert {type(activation) for activation in chosen} == known
    x = np.linspace(-5, 5, 1001)
    panels = [axes for axes in draw_activations().axes if axes.axison]
    for axes, activation in zip(panels, chosen, strict=True):
        assert axes.get_title("left") == str(activation)
        y, slope = (np.asarray(line.get_ydata(), float) for line in axes.get_lines())
        np.testing.assert_array_equal(y, activation.apply(x))
        np.testing.assert_allclose(slope[[100, 900]], (np.gradient(y, x))[[100, 900]], atol=1e-3)
    assert (ROOT / "docs" / "pictures" / "activations.png").stat().st_size > 5000
