# %% [markdown]
# # 3. Gradient descent
#
# A walker in fog, in the mountains, who wants to go down: feel which way the ground falls, take a step, feel again.
# That is how every network in this course learns. At the end of this notebook you can
#
# - tell from a curve of the loss whether the learning rate is too small, right, or too large, and say from which rate
#   on it explodes,
# - see why inputs are scaled before anything is trained,
# - say what batch, stochastic and mini-batch gradient descent have in common, and what each is good for.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxdl
from jaxdl import data, losses, metrics, models, report

jaxdl.parallel.configure()

# %% [markdown]
# ## One weight
#
# The simplest valley is a parabola, $L(w) = (w - 3)^2$, with its bottom at $w = 3$ and the slope $L'(w) = 2\,(w - 3)$.
# We begin at $w = 0$ and take steps of the **learning rate** $\eta$ times the slope, downhill:
#
# $$w \leftarrow w - \eta\, L'(w).$$


# %%
def valley(w):
    return (w - 3) ** 2


def descend(rate, steps=12, w=0.0):
    path = [w]
    for _ in range(steps):
        w = w - rate * jax.grad(valley)(w)
        path.append(float(w))
    return np.array(path)


ws = np.linspace(-2, 8, 200)
figure, axes = plt.subplots(1, 4, figsize=(9.5, 2.6), sharey=True)
for axis, rate in zip(axes, (0.03, 0.3, 0.9, 1.05), strict=True):
    path = descend(rate)
    axis.plot(ws, valley(ws), color="lightgray")
    axis.plot(path, valley(path), "o-", markersize=4)
    axis.set(title=f"learning rate {rate}", xlabel="w", xlim=(-2, 8), ylim=(-1, 26))
axes[0].set_ylabel("loss")
plt.show()

# %% [markdown]
# Too small, and we are still far away after twelve steps. Right, and we are there. Large, and we jump across the
# valley, back and forth, but end up lower each time. Too large, and each jump lands *higher* than the last: the loss
# explodes.
#
# Where is the border? A step makes of the distance to the bottom, $d = w - 3$, the distance
# $d - \eta \cdot 2d = (1 - 2\eta)\,d$. It shrinks as long as $|1 - 2\eta| < 1$, that is for $0 < \eta < 1$. In general
# the border is at 2 divided by the curvature (the second derivative), which here is 2.

# %%
for rate in (0.03, 0.3, 0.9, 1.05):
    left = abs(descend(rate)[-1] - 3) / 3
    print(f"rate {rate}: each step leaves {abs(1 - 2 * rate):.2f} of the distance, twelve steps {left:.5f}")
    assert np.isclose(left, abs(1 - 2 * rate) ** 12, rtol=1e-3)

# %% [markdown]
# ## Two weights, and why inputs are scaled
#
# Now some real work: the price of a home from its area. There are 20 homes, made up, with the price in millions. A
# weight and a bias draw a line, and the loss is the **mean squared error**:
#
# $$L(w, b) = \frac1N \sum_i (w x_i + b - y_i)^2, \qquad
# \frac{\partial L}{\partial w} = \frac2N \sum_i (w x_i + b - y_i)\, x_i, \qquad
# \frac{\partial L}{\partial b} = \frac2N \sum_i (w x_i + b - y_i).$$
#
# With two weights the loss is a landscape. Here it is seen from above, with a line for each height, for the area as it
# is (in thousands of square feet, 0.8 to 3.7) and for the area scaled to have the mean 0 and the spread 1.

# %%
draw = np.random.default_rng(0)
area = draw.uniform(0.8, 3.7, size=20)
price = 0.9 * area + 0.4 + draw.normal(scale=0.25, size=20)
scaled = (area - area.mean()) / area.std()


def loss(w, b, x):
    return ((w * x + b - price) ** 2).mean()


def walk(x, rate, steps, w=-0.6, b=3.2):
    path = [(w, b)]
    for _ in range(steps):
        error = w * x + b - price
        w, b = w - rate * 2 * (error * x).mean(), b - rate * 2 * error.mean()
        path.append((w, b))
    return np.array(path)  # [1+steps,2]


def landscape(axis, x, path, title):
    bottom_w, bottom_b = np.polyfit(x, price, 1)  # linear algebra finds the bottom at once
    w, b = np.meshgrid(np.linspace(-1.1, 2.9, 80), np.linspace(-1.2, 4.8, 80))
    heights = (((w[..., None] * x + b[..., None] - price) ** 2).mean(-1)) ** 0.5
    axis.contour(w, b, heights, levels=18, colors="lightgray", linewidths=0.8)
    axis.plot(*path.T, "o-", markersize=3, linewidth=1)
    axis.plot(bottom_w, bottom_b, "r*", markersize=12)
    axis.set(title=title, xlabel="w", ylabel="b", aspect="equal")


def curvatures(x):
    columns = np.column_stack([x, np.ones_like(x)])
    return np.linalg.eigvalsh(2 * columns.T @ columns / len(x))


figure, axes = plt.subplots(1, 2, figsize=(7.5, 4.6))
for axis, x, name in ((axes[0], area, "area as it is"), (axes[1], scaled, "area scaled")):
    flat, steep = curvatures(x)
    rate = 0.9 / steep  # a little under half of what explodes
    path = walk(x, rate, 20)
    landscape(axis, x, path, f"{name}: loss {loss(*path[-1], x):.3f} after 20 steps")
    print(f"{name:14} curvatures {flat:.2f} and {steep:.2f}, explodes from the rate {2 / steep:.2f} on")
plt.show()

# %% [markdown]
# On the left the valley is long and narrow. The rate may not be larger than the *steep* direction allows, and with
# that, progress along the *flat* direction is slow. On the right the valley is round: the slope points straight at the
# bottom (the star). Nothing about the problem has changed but the unit of the area, and where it is counted from. This
# is why `data.from_csv` scales the columns of a table unless you forbid it, and why pixels are brought from 0…255 to
# about -1…1.
#
# ## All rows, one row, or a few
#
# The slope of the loss is a mean over all rows. For 20 homes that is quickly done, for a million photographs it is not.
# But a few rows, drawn by chance, have *about* the same slope. So:
#
# - **batch** gradient descent takes all rows for a step. Every step is right, and there are few of them.
# - **stochastic** gradient descent takes one row. The steps stagger about, and there are many of them.
# - **mini-batch** takes a few, 32 say. That is a good slope at a low price, and hardware works on 32 rows nearly as
#   fast as on one.
#
# One pass through all the rows is an **epoch**, however many steps it takes. `data.order` says which rows come in which
# step.


# %%
def steps_of(size, epochs, rate, x, w=-0.6, b=3.2):
    path = [(w, b)]
    for epoch in range(1, epochs + 1):
        rows_of_batches, _ = data.order(len(x), size, seed=1, epoch=epoch)
        for rows in rows_of_batches:
            error = w * x[rows] + b - price[rows]
            w, b = w - rate * 2 * (error * x[rows]).mean(), b - rate * 2 * error.mean()
            path.append((w, b))
    return np.array(path)


figure, axes = plt.subplots(1, 3, figsize=(9, 4.2), sharey=True)
for axis, (name, size) in zip(axes, {"batch": 20, "mini-batch of 5": 5, "stochastic": 1}.items(), strict=True):
    path = steps_of(size, 3, 0.15, scaled)
    landscape(axis, scaled, path, f"{name}: {len(path) - 1} steps")
    print(f"{name:16} loss after 3 epochs {loss(*path[-1], scaled):.3f}")
plt.show()

# %% [markdown]
# All three have seen every home three times. The one that waited for the mean of all of them has taken three steps. The
# stochastic one is at the bottom soon, but it never comes to rest: each home pulls it its own way. Making the learning
# rate smaller towards the end calms it, which is what a **schedule** does.
#
# ## The same with the library
#
# In `jaxdl.fit` the size of a batch is `batch_size`, and the order of the rows is the same `data.order`. So it must
# come to the same numbers as the loop above, and it does.

# %%
homes = data.from_arrays(scaled[:, None].astype(np.float32), price.astype(np.float32))
start = {"params": {"head": {"kernel": jnp.full((1, 1), -0.6), "bias": jnp.full(1, 3.2)}}}
how = {"optimizer": "gradient-descent", "schedule": "constant", "warmup": 0, "weight_decay": 0, "clip_norm": None}
histories = {}
for name, size in {"batch": 20, "mini-batch of 5": 5, "stochastic": 1}.items():
    result = jaxdl.fit(
        models.create("neuron", 1),
        homes,
        phases=jaxdl.Phase(10, 0.15, **how),
        variables=start,
        batch_size=size,
        loss=losses.squared_error,
        metrics={"mae": metrics.mae},
        seed=1,
        progress=False,
    )
    head = result.variables["params"]["head"]
    w, b = steps_of(size, 10, 0.15, scaled)[-1]
    assert np.allclose([head["kernel"][0, 0], head["bias"][0]], [w, b], atol=1e-4)
    histories[name] = result.history

report.compare(histories, "mae")

# %% [markdown]
# `mae` is the mean absolute error: by how many millions the price is wrong on average. What is left at the end is the
# noise that the data were made with.
#
# ## Steps that remember
#
# Plain gradient descent forgets everything between steps. Two ideas help in long narrow valleys. **Momentum** keeps
# some of the last step, so what points the same way each time adds up and what goes back and forth cancels. **Adam**
# also divides each weight's step by the usual size of its slope, so that flat directions get longer steps. Here they
# are on the unscaled area from above, 40 steps each.

# %%
whole = data.from_arrays(area[:, None].astype(np.float32), price.astype(np.float32))
rates = {"gradient-descent": 0.1, "momentum": 0.03, "adam": 0.3}
histories = {}
for name, rate in rates.items():
    phase = jaxdl.Phase(40, rate, **{**how, "optimizer": name})
    same = {"variables": start, "batch_size": 20, "loss": losses.squared_error, "metrics": {"mae": metrics.mae}}
    result = jaxdl.fit(models.create("neuron", 1), whole, phases=phase, progress=False, **same)
    histories[f"{name}, {rate}"] = result.history
report.compare(histories, "loss")

# %% [markdown]
# Nothing is free: momentum and Adam overshoot, and a rate that is good for one is not for another. Adam asks for less
# care, and it is where most people begin.
#
# ## Try it
#
# 1. At which learning rate does the walk on the *unscaled* area begin to explode? Compare with the border that was
#    printed.
# 2. Let the stochastic walk's rate fall with each epoch, `rate / epoch`. Does it come to rest?
# 3. Replace the valley of the beginning by `jnp.sin(w) + 0.1 * w**2`. Where does the walker end, and from which
#    starting points?
#
# ## Where to go from here
#
# [experiments/gradient_descent.py](../experiments/gradient_descent.py) does this for two inputs on the course's table,
# and [jaxdl/optim.py](../jaxdl/optim.py) has all optimizers and schedules. `jaxdl lr-find` looks for a good rate
# ([jaxdl/rates.py](../jaxdl/rates.py)). Next: [4. Backpropagation](04_backpropagation.ipynb), how slopes are found when
# there are many layers.
