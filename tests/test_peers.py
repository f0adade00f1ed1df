"""Update rules, losses, schedules and the loop against PyTorch and scikit-learn, in float64."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier
from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

from src.nn.layers import (
    GELU,
    Activation,
    Array,
    Dense,
    Dropout,
    Identity,
    LeakyReLU,
    ReLU,
    Sigmoid,
    Tanh,
)
from src.nn.losses import Loss, SigmoidCrossEntropy, SoftmaxCrossEntropy, SquaredError
from src.nn.network import MLP, Network, Parameters, backward, forward, with_masks
from src.support.randomness import stream
from src.training.batching import Batching, Full, Mini, Sample
from src.training.engines.base import Arrays
from src.training.optimizers import SGD, Adam, Optimizer, norm
from src.training.schedules import Constant, Cosine, InverseScaling, Plateau, Schedule, Step
from src.training.training_run import Epoch
from tests.test_nn import random_parameters
from tests.test_training import blobs, follow

SEED, EPOCHS, BATCH, HIDDEN = 5, 20, 24, (8, 7)
N, UPDATES = 104, 5  # four batches of 24 and one of 8 an epoch: 100 updates
DATA = Arrays(
    blobs(N, 1).x / 2, blobs(N, 1).labels
)  # small enough that scikit-learn cuts off no loss at 36
CROSS_ENTROPY = SoftmaxCrossEntropy()

# Ours, and the same out of PyTorch. What is left at its default is compared as such.
ACTIVATIONS: dict[Activation, Callable[[Any], Any]] = {
    ReLU(): lambda nn: nn.ReLU(),
    LeakyReLU(): lambda nn: nn.LeakyReLU(),
    LeakyReLU(0.3): lambda nn: nn.LeakyReLU(0.3),
    GELU(): lambda nn: nn.GELU(approximate="tanh"),
    Sigmoid(): lambda nn: nn.Sigmoid(),
    Tanh(): lambda nn: nn.Tanh(),
    Identity(): lambda nn: nn.Identity(),
}
LOSSES: dict[
    Loss, Callable[[Any, Any, Any], Any]
] = {  # of torch.nn.functional, the logits and the one-hot targets
    CROSS_ENTROPY: lambda F, z, t: F.cross_entropy(z, t.argmax(1)),
    SoftmaxCrossEntropy(0.1): lambda F, z, t: F.cross_entropy(z, t.argmax(1), label_smoothing=0.1),
    SigmoidCrossEntropy(): lambda F, z, t: (
        F.binary_cross_entropy_with_logits(z, t, reduction="sum") / len(z)
    ),
    SquaredError(Identity()): lambda F, z, t: F.mse_loss(z, t, reduction="sum") / 2 / len(z),
    SquaredError(Sigmoid()): lambda F, z, t: (
        F.mse_loss(z.sigmoid(), t, reduction="sum") / 2 / len(z)
    ),
}
RULES: dict[str, tuple[Callable[..., Optimizer], dict[str, Any], str, dict[str, Any]]] = {
    "sgd": (SGD, {}, "SGD", {"lr": 0.1}),
    "momentum": (SGD, {"momentum": 0.9}, "SGD", {"lr": 0.02, "momentum": 0.9}),
    "nesterov": (
        SGD,
        {"momentum": 0.8, "nesterov": True},
        "SGD",
        {"lr": 0.04, "momentum": 0.8, "nesterov": True},
    ),
    "adam": (Adam, {}, "Adam", {"lr": 0.01}),
    "adam2": (
        Adam,
        {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-3},
        "Adam",
        {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3},
    ),
}


@pytest.fixture(scope="module")
def torch() -> Iterator[Any]:
    module: Any = pytest.importorskip("torch", reason="needs PyTorch: make peers")
    threads = module.get_num_threads()
    module.set_num_threads(
        1
    )  # for arrays this small, handing work to another thread takes longer than the work
    yield module
    module.set_num_threads(threads)


@dataclass
class Course:
    """What became of a training elsewhere, in our terms."""

    parameters: list[Array]  # W1, b1, W2, b2, …
    losses: list[float]  # the mean over the passes of each epoch
    rates: list[float]  # of the last update of each epoch
    norms: list[float]  # of each update's gradient, before clipping


def flat(parameters: Parameters) -> list[Array]:
    return [array for layer in parameters for array in layer]


def close(found: Any, expected: Any, within: float = 1e-12) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=within)


def same_course(epochs: list[Epoch], course: Course, within: float = 1e-12) -> None:
    close([epoch.scores["train"].loss for epoch in epochs], course.losses, within)
    close([epoch.lr for epoch in epochs], course.rates, within)
    for found, expected in zip(flat(epochs[-1].parameters), course.parameters, strict=True):
        close(found, expected, within)


def network_of(
    activation: Activation, dropout: float = 0.0, hidden: tuple[int, ...] = HIDDEN
) -> Network:
    return MLP(6, hidden, 3, activation, dropout).layers


def start(network: Network) -> Parameters:
    return random_parameters(
        np.random.default_rng(2), network, ()
    )  # the biases too: what is done to them must show


def by_us(
    network: Network, loss: Loss, optimizer: Optimizer, lr: float, **settings: Any
) -> list[Epoch]:
    settings = {"batching": Mini(BATCH), "epochs": EPOCHS, "seed": SEED, **settings}
    return list(
        follow(
            network,
            start(network),
            {"train": DATA},
            loss=loss,
            optimizer=optimizer,
            lr=lr,
            **settings,
        )
    )


def twin(torch: Any, layer: Any, p: tuple[Array, ...]) -> Any:
    """Return a layer as a PyTorch module with the same parameters; dropout uses our mask."""
    if isinstance(layer, Dense):
        module = torch.nn.Linear(layer.fan_in, layer.fan_out, dtype=torch.float64)
        module.load_state_dict({"weight": torch.tensor(p[0].T), "bias": torch.tensor(p[1][0])})
        return module
    return None if isinstance(layer, Dropout) else ACTIVATIONS[layer](torch.nn)


def by_torch(
    torch: Any,
    network: Network,
    loss: Loss,
    rule: str = "SGD",
    *,
    decay: float = 0.0,
    clip: float | None = None,
    scheduler: Callable[[Any], Any] | None = None,
    by_loss: bool = False,
    **settings: Any,
) -> Course:
    """Train the same network by autograd, on the batches and with the masks of our seed."""
    modules = [twin(torch, layer, p) for layer, p in zip(network, start(network), strict=True)]
    dense = [module for module in modules if isinstance(module, torch.nn.Linear)]
    weights, biases = [module.weight for module in dense], [module.bias for module in dense]
    groups = [{"params": weights, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}]
    optimizer = getattr(torch.optim, rule)(groups, **settings)
    plan = scheduler(optimizer) if scheduler else None
    x, targets = torch.tensor(DATA.x), torch.tensor(np.eye(3)[DATA.labels])
    losses, rates, norms = [], [], []
    for epoch in range(1, EPOCHS + 1):
        order, masks, total = (
            stream(SEED, "order", epoch).permutation(N),
            stream(SEED, "dropout", epoch),
            0.0,
        )
        for rows in (order[first : first + BATCH] for first in range(0, N, BATCH)):
            z = x[rows]
            masked = with_masks(network, start(network), (len(rows),), masks)
            for layer, module, p in zip(network, modules, masked, strict=True):
                z = z * torch.tensor(p[0]) if isinstance(layer, Dropout) else module(z)
            value = LOSSES[loss](torch.nn.functional, z, targets[rows])
            optimizer.zero_grad()
            value.backward()
            norms.append(float(torch.nn.utils.clip_grad_norm_(weights + biases, clip or math.inf)))
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            if plan and not by_loss:
                plan.step()
            total += value.item() * len(rows)
        losses.append(total / N)
        rates.append(rate)
        if plan and by_loss:
            plan.step(total / N)
    arrays = [
        a
        for module in dense
        for a in (module.weight.detach().numpy().T, module.bias.detach().numpy()[None])
    ]
    return Course(arrays, losses, rates, norms)


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("rule", RULES)
def test_an_update_rule_goes_where_pytorchs_goes(
    torch: Any, rule: str, decay: float, clip: float | None
) -> None:
    make, ours, name, theirs = RULES[rule]
    network, lr = network_of(Tanh()), theirs["lr"]
    course = by_torch(torch, network, CROSS_ENTROPY, name, decay=decay, clip=clip, **theirs)
    same_course(
        by_us(network, CROSS_ENTROPY, make(**ours, weight_decay=decay, clip_norm=clip), lr), course
    )
    assert len(course.norms) == 100
    # Decay and clipping must each matter, and clipping must change some updates and not others.
    without = []
    if decay:
        without.append(make(**ours, clip_norm=clip))
    if clip:
        without.append(make(**ours, weight_decay=decay))
        assert sum(length > 1.1 * clip for length in course.norms) >= 10
        assert sum(length < 0.9 * clip for length in course.norms) >= 10
    for optimizer in without:
        other = flat(by_us(network, CROSS_ENTROPY, optimizer, lr)[-1].parameters)
        assert (
            max(np.abs(a - b).max() for a, b in zip(other, course.parameters, strict=True)) > 1e-3
        )


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_a_loss_its_gradient_and_descent_on_it_are_those_of_pytorch(torch: Any, loss: Loss) -> None:
    rng = np.random.default_rng(0)
    for scale in (1, 4, 30):
        logits, labels = rng.normal(0, scale, (7, 5)), rng.integers(0, 5, 7)
        z = torch.tensor(logits, requires_grad=True)
        value = LOSSES[loss](torch.nn.functional, z, torch.tensor(np.eye(5)[labels]))
        value.backward()
        close(loss.value(logits, labels), value.item())
        close(loss.gradient(logits, labels), z.grad.numpy())
    network = network_of(Tanh())
    same_course(by_us(network, loss, SGD(), 0.1), by_torch(torch, network, loss, lr=0.1))


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_an_activation_and_its_gradient_are_those_of_pytorch(
    torch: Any, activation: Activation
) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.normal(0, 3, (20, 30)), rng.normal(size=(20, 30))
    x[np.abs(x) < 1e-3] = 0.5  # away from the corner of a ReLU
    z = torch.tensor(x, requires_grad=True)
    value = ACTIVATIONS[activation](torch.nn)(z)
    value.backward(torch.tensor(dy))
    y = activation.forward((), x)
    close(y, value.detach().numpy())
    close(activation.input_gradient((), x, y, dy), z.grad.numpy())


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_a_network_with_our_masks_goes_where_pytorchs_goes(
    torch: Any, activation: Activation, dropout: float
) -> None:
    network = network_of(activation, dropout)
    same_course(
        by_us(network, CROSS_ENTROPY, SGD(), 0.05), by_torch(torch, network, CROSS_ENTROPY, lr=0.05)
    )


def test_a_mask_is_made_of_what_pytorchs_dropout_is_made_of(torch: Any) -> None:
    torch.manual_seed(0)
    theirs = torch.nn.functional.dropout(torch.ones(2000, 50, dtype=torch.float64), 0.3).numpy()
    ours = Dropout(50, 0.3).mask((2000,), stream(SEED, "dropout"), np.float64)
    close(np.unique(ours), np.unique(theirs))
    close(
        (ours == 0).mean(), (theirs == 0).mean(), within=0.02
    )  # eight standard deviations, at 100,000 units


def rising_cosine(torch: Any, optimizer: Any, warmup: int, updates: int, least: float) -> Any:
    """Return PyTorch's linear rise over so many updates, then its half cosine over the rest."""
    of = torch.optim.lr_scheduler
    rise = of.LinearLR(optimizer, start_factor=1 / warmup, total_iters=warmup - 1)
    fall = of.CosineAnnealingLR(optimizer, T_max=updates - warmup, eta_min=least)
    return of.SequentialLR(optimizer, [rise, fall], milestones=[warmup])


def plateau(torch: Any, optimizer: Any, patience: int, min_delta: float, mode: str = "min") -> Any:
    settings = {
        "factor": 0.5,
        "patience": patience,
        "threshold": min_delta,
        "threshold_mode": "abs",
        "eps": 0,
    }
    return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode, **settings)


@pytest.mark.parametrize("kind", ["rising cosine", "plateau"])
def test_the_loop_follows_a_schedule_as_pytorch_does(torch: Any, kind: str) -> None:
    network, by_loss = network_of(Tanh()), kind == "plateau"
    schedule = (
        Plateau(metric="train/loss", factor=0.5, patience=1, min_delta=0.05)
        if by_loss
        else Cosine(warmup=2)
    )
    peers = {
        "rising cosine": lambda optimizer: rising_cosine(
            torch, optimizer, 2 * UPDATES, EPOCHS * UPDATES, 0
        ),
        "plateau": lambda optimizer: plateau(torch, optimizer, 1, 0.05),
    }
    settings: dict[str, Any] = {
        "lr": 0.05,
        "momentum": 0.9,
        "scheduler": peers[kind],
        "by_loss": by_loss,
    }
    course = by_torch(torch, network, CROSS_ENTROPY, **settings)
    same_course(by_us(network, CROSS_ENTROPY, SGD(momentum=0.9), 0.05, schedule=schedule), course)
    assert course.rates[-1] < 0.3 * 0.05


def factors(
    schedule: Schedule, epochs: int, updates: int, watched: Sequence[float] = ()
) -> list[float]:
    return [
        f
        for e in range(epochs)
        for f in schedule.factors(e + 1, updates, epochs, watched[:e]).tolist()
    ]


def torch_rates(
    torch: Any, steps: int, scheduler: Callable[[Any], Any], watched: Sequence[float] = ()
) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    plan, rates = scheduler(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        plan.step(*watched[step : step + 1])
    return rates


@pytest.mark.parametrize("every", [1, 3])
def test_step_falls_as_pytorchs(torch: Any, every: int) -> None:
    expected = torch_rates(
        torch, 12, lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, every, 0.3)
    )
    close(factors(Step(every=every, factor=0.3), 12, 4), np.repeat(expected, 4))


@pytest.mark.parametrize("floor", [0.0, 0.2])
def test_cosine_falls_as_pytorchs_update_by_update(torch: Any, floor: float) -> None:
    fall = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = torch_rates(torch, 84, lambda optimizer: fall(optimizer, T_max=84, eta_min=floor))
    close(factors(Cosine(floor=floor), 12, 7), expected)
    expected = torch_rates(
        torch, 84, lambda optimizer: rising_cosine(torch, optimizer, 21, 84, floor)
    )
    close(factors(Cosine(floor=floor, warmup=3), 12, 7), expected)


@pytest.mark.parametrize(("metric", "mode"), [("val/loss", "min"), ("val/accuracy", "max")])
@pytest.mark.parametrize(("patience", "min_delta"), [(0, 0.0), (1, 0.25), (3, 0.0), (3, 0.5)])
def test_plateau_falls_when_pytorchs_falls(
    torch: Any, metric: str, mode: str, patience: int, min_delta: float
) -> None:
    schedule = Plateau(metric=metric, factor=0.5, patience=patience, min_delta=min_delta)
    drift = np.linspace(0, -4 if mode == "min" else 4, 50)
    for seed in range(20):
        # In quarters, so that many values equal the best one exactly, or the threshold exactly.
        values = (
            np.round(4 * (drift + np.random.default_rng(seed).normal(0, 0.7, 50))) / 4
        ).tolist()
        expected = torch_rates(
            torch, 50, lambda o: plateau(torch, o, patience, min_delta, mode), values
        )
        assert factors(schedule, 50, 2, values) == np.repeat(expected, 2).tolist()
        assert expected[-1] < 1


def test_a_warm_up_rises_by_equal_steps_to_its_last_update() -> None:
    rise = [(update + 1) / 10 for update in range(10)]
    close(factors(Constant(warmup=2), 4, 5), [*rise, *[1.0] * 10])
    close(factors(Constant(warmup=0.5), 2, 6), [1 / 3, 2 / 3, *[1.0] * 10])
    close(factors(Step(every=1, factor=0.5, warmup=2), 4, 5), [*rise, *[1.0] * 5, *[0.5] * 5])


def by_sklearn(
    network: Network, hidden: tuple[int, ...], batching: Batching, epochs: int, **settings: Any
) -> Course:
    """Train scikit-learn's network from our weights, on the samples in each epoch's order."""
    settings = {"alpha": 0.0, "momentum": 0.0, "nesterovs_momentum": False, **settings}
    peer = MLPClassifier(hidden, solver="sgd", shuffle=False, **settings)
    layers = iter([(layer[0].copy(), layer[1][0].copy()) for layer in start(network) if layer])
    peer._init_coef = lambda *_: next(layers)  # where it would draw its first weights
    rates = []
    for epoch in range(1, epochs + 1):
        order = np.arange(N) if batching == Full() else stream(SEED, "order", epoch).permutation(N)
        rates.append(peer._optimizer.learning_rate if epoch > 1 else peer.learning_rate_init)
        peer.partial_fit(DATA.x[order], DATA.labels[order], classes=np.arange(3))
    arrays = [a for W, b in zip(peer.coefs_, peer.intercepts_, strict=True) for a in (W, b[None])]
    return Course(arrays, peer.loss_curve_, rates, [])


@pytest.mark.parametrize(
    ("batching", "size", "lr"),
    [(Full(), N, 0.5), (Mini(BATCH), BATCH, 0.2), (Sample(), 1, 0.02)],
    ids=str,
)
@pytest.mark.parametrize("hidden", [(9,), HIDDEN], ids=str)
@pytest.mark.parametrize(
    ("activation", "name"), [(ReLU(), "relu"), (Tanh(), "tanh"), (Sigmoid(), "logistic")]
)
def test_the_loss_curve_is_that_of_scikit_learn(
    activation: Activation,
    name: str,
    hidden: tuple[int, ...],
    batching: Batching,
    size: int,
    lr: float,
) -> None:
    network = network_of(activation, hidden=hidden)
    course = by_sklearn(
        network, hidden, batching, 15, activation=name, batch_size=size, learning_rate_init=lr
    )
    same_course(
        by_us(network, CROSS_ENTROPY, SGD(), lr, batching=batching, epochs=15), course, within=1e-9
    )
    assert course.losses[-1] < 0.8 * course.losses[0]


@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_penalty_and_momentum_are_scikit_learns_in_our_terms(
    momentum: float, nesterov: bool
) -> None:
    """It divides alpha by the number of samples in each batch; its loss contains the penalty."""
    network, alpha, size = (
        network_of(Tanh()),
        2.0,
        26,
    )  # it divides 104: alpha means the same in every batch
    theirs: dict[str, Any] = {
        "alpha": alpha,
        "momentum": momentum,
        "nesterovs_momentum": nesterov,
        "batch_size": size,
    }
    course = by_sklearn(
        network, HIDDEN, Mini(size), 25, activation="tanh", learning_rate_init=0.02, **theirs
    )
    optimizer = SGD(momentum=momentum, nesterov=nesterov, weight_decay=alpha / size)
    epochs = by_us(network, CROSS_ENTROPY, optimizer, 0.02, batching=Mini(size), epochs=25)
    for found, expected in zip(flat(epochs[-1].parameters), course.parameters, strict=True):
        close(found, expected)


def test_scikit_learn_decays_more_in_a_smaller_last_batch_than_we_do() -> None:
    network, alpha, size = network_of(Tanh()), 2.0, 30  # the last of four batches has 14
    settings = {"activation": "tanh", "learning_rate_init": 0.02, "batch_size": size}
    theirs = by_sklearn(network, HIDDEN, Mini(size), 25, alpha=alpha, **settings).parameters
    ours = by_us(
        network,
        CROSS_ENTROPY,
        SGD(weight_decay=alpha / size),
        0.02,
        batching=Mini(size),
        epochs=25,
    )
    lengths = [
        sum(float(np.square(array).sum()) for array in arrays)
        for arrays in (flat(ours[-1].parameters), theirs)
    ]
    assert lengths[1] < 0.97 * lengths[0]


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_inverse_scaling_counts_samples_as_scikit_learn_does(power: float) -> None:
    schedule = InverseScaling(power=power, rate=N)
    peer, expected = (
        SGDOptimizer([], learning_rate_init=1.0, lr_schedule="invscaling", power_t=power),
        [],
    )
    for epoch in range(1, 31):
        expected.append(peer.learning_rate)
        peer.iteration_ends(epoch * N)
    close(factors(schedule, 30, 1), expected)

    network, theirs = (
        network_of(Tanh()),
        {"learning_rate": "invscaling", "power_t": power, "batch_size": N},
    )
    course = by_sklearn(
        network, HIDDEN, Full(), 20, activation="tanh", learning_rate_init=1.0, **theirs
    )
    same_course(
        by_us(network, CROSS_ENTROPY, SGD(), 1.0, batching=Full(), schedule=schedule), course
    )


STACKED: dict[str, dict[str, Any]] = {
    **{
        rule: {"optimizer": RULES[rule][0](**RULES[rule][1], weight_decay=0.05, clip_norm=1.0)}
        for rule in RULES
    },
    **{repr(loss): {"loss": loss} for loss in LOSSES},
    **{repr(activation): {"activation": activation} for activation in ACTIVATIONS},
    "dropout": {"dropout": 0.3},
}


@pytest.mark.parametrize("case", STACKED)
def test_a_stack_trains_as_each_of_its_networks_alone(case: str) -> None:
    chosen = {
        "activation": Tanh(),
        "loss": CROSS_ENTROPY,
        "optimizer": SGD(),
        "dropout": 0.0,
        **STACKED[case],
    }
    network, loss, optimizer = (
        network_of(chosen["activation"], chosen["dropout"]),
        chosen["loss"],
        chosen["optimizer"],
    )
    rng = np.random.default_rng(3)
    stack = random_parameters(rng, network, (3,))
    x, labels = (
        rng.normal(size=(3, 12, 6)),
        rng.integers(0, 3, (3, 12)),
    )  # each network has its own samples,
    masks = with_masks(
        network, stack, (20, 3, 12), rng
    )  # its own masks in each of 20 steps, and its own rate
    lr = np.array([0.01, 0.03, 0.1]).reshape(3, 1, 1)

    def trained(p: Parameters, which: Any, rate: Any) -> tuple[list[Array], list[Array]]:
        state, norms = optimizer.start(p), []
        for step in range(20):
            masked = tuple(
                (mask[0][step, which],) if isinstance(layer, Dropout) else arrays
                for layer, mask, arrays in zip(network, masks, p, strict=True)
            )
            values = forward(network, masked, x[which])
            gradients = backward(network, masked, values, loss.gradient(values[-1], labels[which]))
            norms.append(norm(gradients))
            p, state = optimizer.update(p, gradients, state, rate)
        return flat(p), norms

    together, norms = trained(stack, slice(None), lr)
    for k in range(3):
        alone, _ = trained(
            tuple(tuple(array[k] for array in layer) for layer in stack), k, lr[k].item()
        )
        for found, expected in zip(together, alone, strict=True):
            close(found[k], expected)
    if optimizer.clip_norm:  # there are updates that hold one network back and let another pass
        long = np.array(norms).reshape(20, 3) > optimizer.clip_norm
        assert (long.any(axis=1) & ~long.all(axis=1)).any()
