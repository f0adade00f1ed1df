"""The same training pass as others do it, each in the way that is ordinary for it."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from src.nn.layers import Dense, Sigmoid
from src.support.threads import available_cores
from tests.benchmarks.images import Images
from tests.benchmarks.measuring import Runner
from tests.benchmarks.ours import orders, rates, starts
from tests.benchmarks.works import JAX, PYTORCH, SKLEARN, Work

_MODULES = {PYTORCH: "torch", SKLEARN: "sklearn", JAX: "jax"}


def is_installed(peer: str) -> bool:
    """Tell whether a peer can be had."""
    try:
        importlib.import_module(_MODULES[peer])
    except ImportError:
        return False
    return True


def pytorch(work: Work, images: Images) -> Runner:
    """A module, an optimizer and a loop; of a stack one network, since there they are trained one after another."""
    torch: Any = importlib.import_module("torch")
    nn, (start, *_), (order, *_) = torch.nn, starts(work), orders(work, work.few)
    modules = []
    for layer, p in zip(work.network, start, strict=True):
        if isinstance(layer, Dense):
            linear = nn.Linear(layer.fan_in, layer.fan_out)
            linear.load_state_dict(
                {"weight": torch.from_numpy(p[0].T.copy()), "bias": torch.from_numpy(p[1][0])}
            )
            modules.append(linear)
        else:
            modules.append(nn.Sigmoid() if isinstance(layer, Sigmoid) else nn.ReLU())
    model = nn.Sequential(*modules)
    optimizer = torch.optim.SGD(model.parameters(), lr=work.lr)
    x, labels = (
        torch.from_numpy(images.scaled[: work.few]),
        torch.from_numpy(images.labels[: work.few]),
    )

    def update(x: Any, labels: Any) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), labels).backward()
        optimizer.step()

    def run() -> None:
        if isinstance(order, slice):
            update(x, labels)
        else:
            for rows in torch.from_numpy(order).split(work.size):
                update(x[rows], labels[rows])

    return Runner(run, work.few, torch.get_num_threads())


def scikit_learn(work: Work, images: Images) -> Runner | None:
    """An epoch a call of ``partial_fit``, which shuffles by itself; it has nothing for stacks."""
    if work.models > 1:
        return None
    neural_network: Any = importlib.import_module("sklearn.neural_network")
    x, labels = images.scaled[: work.few], images.labels[: work.few]
    model = neural_network.MLPClassifier(
        work.hidden,
        activation="logistic" if isinstance(work.activation, Sigmoid) else "relu",
        solver="sgd",
        alpha=0,
        batch_size=work.size or work.few,
        learning_rate_init=work.lr,
        momentum=0,
        nesterovs_momentum=False,
        shuffle=work.size is not None,
        random_state=0,
    )
    threads = max(
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    )
    return Runner(lambda: model.partial_fit(x, labels, classes=range(10)), work.few, threads)


def jax(work: Work, images: Images) -> Runner:
    """An epoch a compiled call that scans the batches, its memory given back to it; a stack is one by ``vmap``.

    Labels as ones and zeros, and batches that are picked within the scan, are the quickest form of it here.
    """
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_platforms", "cpu")  # as all the others
    jnp = jax.numpy
    activation = jax.nn.sigmoid if isinstance(work.activation, Sigmoid) else jax.nn.relu

    def loss(parameters: Any, x: Any, labels: Any) -> Any:
        for W, b in parameters[:-1]:
            x = activation(x @ W + b)
        W, b = parameters[-1]
        logs = jax.nn.log_softmax(x @ W + b)
        return -(logs * jax.nn.one_hot(labels, 10)).sum() / len(x)

    def update(parameters: Any, x: Any, labels: Any, lr: Any) -> Any:
        gradients = jax.grad(loss)(parameters, x, labels)
        return jax.tree.map(lambda p, g: p - lr * g, parameters, gradients)

    own = [[p for p in start if p] for start in starts(work)]
    members = work.models // work.lanes
    lr: Any = np.float32(work.lr)
    parameters = jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *own)
    if work.models == 1:
        parameters = jax.tree.map(lambda p: p[0], parameters)
    else:
        lr = jnp.asarray(rates(work), np.float32)
        update = jax.vmap(update, (0, None, None, 0))
    if work.lanes > 1:
        parameters = jax.tree.map(
            lambda p: p.reshape(work.lanes, members, *p.shape[1:]), parameters
        )
        lr = lr.reshape(work.lanes, members)
        update = jax.vmap(update)

    def full(parameters: Any, x: Any, labels: Any, order: Any) -> Any:
        return update(parameters, x, labels, lr)

    def scan(parameters: Any, x: Any, labels: Any, order: Any) -> Any:
        def step(parameters: Any, rows: Any) -> Any:
            return update(parameters, x[rows], labels[rows], lr), None

        return jax.lax.scan(step, parameters, order)[0]

    order = None
    if work.size is not None:
        order = np.stack([np.asarray(rows) for rows in orders(work, work.samples)], axis=1)
        order = order.T.reshape(work.lanes, -1, work.size).swapaxes(0, 1)  # (updates, lanes, size)
        order = jnp.asarray(order if work.lanes > 1 else order[:, 0])
    epoch = jax.jit(full if work.size is None else scan, donate_argnums=0)
    x, labels = (
        jnp.asarray(images.scaled[: work.samples]),
        jnp.asarray(images.labels[: work.samples]),
    )

    def run() -> None:
        nonlocal parameters
        parameters = jax.block_until_ready(epoch(parameters, x, labels, order))

    return Runner(run, work.samples * work.models, available_cores())


MAKERS: dict[str, Callable[[Work, Images], Runner | None]] = {
    PYTORCH: pytorch,
    SKLEARN: scikit_learn,
    JAX: jax,
}
