"""The same training pass as others do it, each in the way that is ordinary for it."""

import importlib
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from src.nn.layers import Dense, Dropout, Sigmoid
from src.support.threads import available_cores
from src.training.optimizers import SGD, Adam
from tests.benchmarks.images import Images, load
from tests.benchmarks.measuring import Runner
from tests.benchmarks.ours import chosen, orders, rates, starts
from tests.benchmarks.works import JAX, JAX_SAME, PYTORCH, SKLEARN, Work

_MODULES = {PYTORCH: "torch", SKLEARN: "sklearn", JAX: "jax", JAX_SAME: "jax"}


def is_installed(peer: str) -> bool:
    """Tell whether a peer can be had."""
    try:
        importlib.import_module(_MODULES[peer])
    except ImportError:
        return False
    return True


def pytorch(work: Work, images: Images) -> Runner:
    """A module, an optimizer and a loop. Of a stack one network: they train one after another."""
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
        elif isinstance(layer, Dropout):
            modules.append(nn.Dropout(layer.rate))
        else:
            modules.append(nn.Sigmoid() if isinstance(layer, Sigmoid) else nn.ReLU())
    model = nn.Sequential(*modules)
    if isinstance(work.optimizer, Adam):
        optimizer = torch.optim.Adam(model.parameters(), lr=work.lr)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=work.lr, momentum=_momentum(work))
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
    """One ``partial_fit`` per epoch, which shuffles by itself. It has no stacks and no dropout."""
    if work.models > 1 or work.dropout:
        return None
    neural_network: Any = importlib.import_module("sklearn.neural_network")
    x, labels = images.scaled[: work.few], images.labels[: work.few]
    model = neural_network.MLPClassifier(
        work.hidden,
        activation="logistic" if isinstance(work.activation, Sigmoid) else "relu",
        solver="adam" if isinstance(work.optimizer, Adam) else "sgd",
        alpha=0,
        batch_size=work.size or work.few,
        learning_rate_init=work.lr,
        momentum=_momentum(work),
        nesterovs_momentum=False,
        shuffle=work.size is not None,
        random_state=0,
    )
    threads = max(
        library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"
    )
    return Runner(lambda: model.partial_fit(x, labels, classes=range(10)), work.few, threads)


def jax(work: Work, images: Images) -> Runner:
    """One compiled call per epoch, which scans the batches; a stack is one by ``vmap``.

    It gets its own memory back. One-hot labels, and batches taken within the scan, are fastest.
    """
    jax: Any = importlib.import_module("jax")
    jax.config.update("jax_platforms", "cpu")  # as all the others
    jnp = jax.numpy
    activation = jax.nn.sigmoid if isinstance(work.activation, Sigmoid) else jax.nn.relu

    def loss(parameters: Any, x: Any, labels: Any, key: Any) -> Any:
        for W, b in parameters[:-1]:
            x = activation(x @ W + b)
            if work.dropout:
                key, own = jax.random.split(key)
                stays = jax.random.bernoulli(own, 1 - work.dropout, x.shape)
                x = jnp.where(stays, x / (1 - work.dropout), 0)
        W, b = parameters[-1]
        logs = jax.nn.log_softmax(x @ W + b)
        return -(logs * jax.nn.one_hot(labels, 10)).sum() / len(x)

    def update(state: Any, x: Any, labels: Any, lr: Any) -> Any:
        parameters, buffers, t = state
        key = jax.random.fold_in(jax.random.key(0), t) if work.dropout else None
        gradients = jax.grad(loss)(parameters, x, labels, key)
        t = t + 1
        directions = gradients
        if isinstance(work.optimizer, Adam):
            mean, square = buffers
            mean = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, mean, gradients)
            square = jax.tree.map(lambda s, g: 0.999 * s + 0.001 * g * g, square, gradients)
            by, root_by = 1 - 0.9**t, 1 - 0.999**t
            directions = jax.tree.map(
                lambda m, s: m / by / (jnp.sqrt(s / root_by) + 1e-8), mean, square
            )
            buffers = (mean, square)
        elif buffers:
            (velocity,) = buffers
            directions = jax.tree.map(lambda v, g: _momentum(work) * v + g, velocity, gradients)
            buffers = (directions,)
        return jax.tree.map(lambda p, d: p - lr * d, parameters, directions), buffers, t

    own = [[p for p in start if p] for start in starts(work)]
    members = work.models // work.lanes
    lr: Any = np.float32(work.lr)
    parameters = jax.tree.map(lambda *arrays: jnp.asarray(np.stack(arrays)), *own)
    buffers = [jax.tree.map(jnp.zeros_like, parameters) for _ in range(work.optimizer.buffer_count)]
    state = parameters, tuple(buffers), jnp.zeros(work.models, jnp.float32)
    if work.models == 1:
        state = jax.tree.map(lambda p: p[0], state)
    else:
        lr = jnp.asarray(rates(work), np.float32)
        update = jax.vmap(update, (0, None, None, 0))
    if work.lanes > 1:
        state = jax.tree.map(lambda p: p.reshape(work.lanes, members, *p.shape[1:]), state)
        lr = lr.reshape(work.lanes, members)
        update = jax.vmap(update)

    def full(state: Any, x: Any, labels: Any, order: Any) -> Any:
        return update(state, x, labels, lr)

    def scan(state: Any, x: Any, labels: Any, order: Any) -> Any:
        def step(state: Any, rows: Any) -> Any:
            return update(state, x[rows], labels[rows], lr), None

        return jax.lax.scan(step, state, order)[0]

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
        nonlocal state
        state = jax.block_until_ready(epoch(state, x, labels, order))

    return Runner(run, work.samples * work.models, available_cores())


def _momentum(work: Work) -> float:
    return work.optimizer.momentum if isinstance(work.optimizer, SGD) else 0.0


def jax_on_as_many_cores(work: Work, images: Images) -> Runner | None:
    """JAX in a process of its own that may use as many cores as ours uses; None if that is all."""
    ours = chosen(work, images)
    threads = ours.threads if ours else 1
    if threads >= available_cores() or not hasattr(os, "sched_setaffinity"):
        return None
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=_serve_jax, args=(there, work, threads), daemon=True)
    process.start()
    there.close()

    def run() -> None:
        here.send(True)
        here.recv()

    def close() -> None:
        here.close()
        process.join()

    return Runner(run, work.samples * work.models, threads, close=close)


def _serve_jax(asked: Connection, work: Work, cores: int) -> None:
    """Make a pass each time it is asked for, until nobody can ask any more."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-cores:])  # before JAX makes threads
    runner = jax(work, load())
    try:
        while asked.recv():
            runner.run()
            asked.send(True)
    except EOFError:
        pass


MAKERS: dict[str, Callable[[Work, Images], Runner | None]] = {
    PYTORCH: pytorch,
    SKLEARN: scikit_learn,
    JAX: jax,
    JAX_SAME: jax_on_as_many_cores,
}
