# %% [markdown]
# # 4. Backpropagation
#
# Gradient descent needs the slope of the loss by *every* weight, and a network has thousands or millions.
# Backpropagation finds all of them in one sweep from the end to the beginning, for about the price of computing the
# loss twice more. At the end of this notebook you can
#
# - compute the slopes of a small network with pencil and paper, by the chain rule,
# - write the backward pass of a network of two layers in a handful of lines,
# - say why one goes backwards, and what the forward pass has to keep for it,
# - train a network with your own backward pass on a problem that a single neuron cannot solve.

# %%
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

# %% [markdown]
# ## The chain rule, in numbers
#
# Take one neuron and one example: the input $x = 2$, the weight $w = 0.5$, the bias $b = -0.4$, and the truth $y = 1$.
# Forwards, each step uses the result of the one before:
#
# $$m = w x, \qquad z = m + b, \qquad p = \sigma(z), \qquad L = -\log p.$$
#
# How does $L$ react when $w$ moves a little? $w$ moves $m$, that moves $z$, that moves $p$, and that moves $L$. The
# chain rule says to multiply the reactions along the way:
#
# $$\frac{dL}{dw} = \frac{dL}{dp} \cdot \frac{dp}{dz} \cdot \frac{dz}{dm} \cdot \frac{dm}{dw}
# = -\frac1p \;\cdot\; p\,(1-p) \;\cdot\; 1 \;\cdot\; x.$$

# %%
x, w, b = 2.0, 0.5, -0.4
m = w * x
z = m + b
p = 1 / (1 + np.exp(-z))
loss = -np.log(p)

dp = -1 / p  # each d… is the slope of the loss by that value
dz = dp * p * (1 - p)
dm = dz * 1
db = dz * 1
dw = dm * x

by_jax = jax.grad(lambda w, b: -jnp.log(jax.nn.sigmoid(w * x + b)), argnums=(0, 1))(w, b)
print(f"by hand  dL/dw = {dw:.4f}  dL/db = {db:.4f}")
print(f"jax.grad dL/dw = {by_jax[0]:.4f}  dL/db = {by_jax[1]:.4f}")
assert np.allclose(by_jax, (dw, db), atol=1e-6)

# %% [markdown]
# As a picture: values flow from left to right, above the arrows; slopes from right to left, below. Each box multiplies
# what comes from the right by its own, local slope, and hands it on. No box has to know what the others do.

# %%
figure, axis = plt.subplots(figsize=(9.5, 1.7))
boxes = [("× x", m, dm), ("+ b", z, dz), ("sigmoid", p, dp), ("–log", loss, 1.0)]
arrow = {"arrowstyle": "->", "color": "gray", "lw": 1.5}
edges = [("w", w, dw), *((letter, *box[1:]) for letter, box in zip("mzpL", boxes, strict=True))]
for n, (text, *_) in enumerate(boxes):
    axis.text(2 * n + 1, 0, text, ha="center", va="center", bbox={"boxstyle": "round,pad=0.5", "fc": "white"})
for n, (letter, value, slope) in enumerate(edges):
    left, right = 2 * n - 0.55, 2 * n + 0.55
    axis.annotate("", (right, 0.12), (left, 0.12), arrowprops=arrow)
    axis.annotate("", (left, -0.12), (right, -0.12), arrowprops={**arrow, "color": "C3"})
    axis.text(2 * n, 0.25, f"{letter} = {value:.2f}", ha="center", color="C0")
    axis.text(2 * n, -0.4, f"dL/d{letter} = {slope:.2f}", ha="center", color="C3")
axis.set(xlim=(-1, 9), ylim=(-0.55, 0.45))
axis.axis("off")
plt.show()

# %% [markdown]
# The nudge test says whether a slope is right. Move the weight by a hair and look: the loss should change by the slope
# times the hair.

# %%
hair = 1e-4
nudged = -np.log(1 / (1 + np.exp(-((w + hair) * x + b))))
print(f"the loss changed by {nudged - loss:.3e}; slope × hair = {dw * hair:.3e}")

# %% [markdown]
# ## Where paths meet, slopes add up
#
# If a value is used twice, it moves the loss on two ways, and the slopes of both ways add up. Here $a$ goes into two
# products: $L = a\,b + a\,c$. That is why, in the backward pass of a layer, a slope is *summed* over all neurons that a
# value goes into, and over all examples that a weight is used for. Both are what a matrix product does.

# %%
a, b, c = 3.0, 2.0, 5.0
slope = jax.grad(lambda a: a * b + a * c)(a)
print(f"dL/da = b + c = {b + c:.0f}, and jax.grad says {slope:.0f}")

# %% [markdown]
# ## Two layers
#
# A network with a hidden layer, for a whole batch of $N$ examples at once:
#
# $$Z_1 = X W_1 + b_1, \quad H = \sigma(Z_1), \quad Z_2 = H W_2 + b_2, \quad P = \sigma(Z_2), \quad
# L = \text{mean log loss}.$$
#
# Backwards we need three rules. Write $\delta A$ for the slope of the loss by $A$, which has the shape of $A$.
#
# | forwards | backwards | in words |
# |---|---|---|
# | $P = \sigma(Z_2)$ and the log loss | $\delta Z_2 = (P - Y) / N$ | the error ([notebook 2](02_neuron.ipynb)) |
# | $H = \sigma(Z)$ | $\delta Z = \delta H \odot H \odot (1 - H)$ | times the local slope, entry by entry |
# | $Z = A W + b$ | $\delta W = A^\top \delta Z$ | each weight by its input, summed over the rows |
# | | $\delta b = \sum_{\text{rows}} \delta Z$ | a bias moves every row |
# | | $\delta A = \delta Z\, W^\top$ | back through the same weights |
#
# To get $\delta W$ we need the layer's *input* $A$. So the forward pass must keep what every layer was given. Training
# takes much more memory than predicting, and that is why.


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def forward(params, x):
    h = sigmoid(x @ params["W1"] + params["b1"])  # [N,H]
    p = sigmoid(h @ params["W2"] + params["b2"])  # [N,1]
    return h, p


def backward(params, x, y):
    h, p = forward(params, x)
    dz2 = (p - y) / len(y)  # [N,1]
    dh = dz2 @ params["W2"].T  # [N,H]
    dz1 = dh * h * (1 - h)  # [N,H]
    return {"W1": x.T @ dz1, "b1": dz1.sum(0), "W2": h.T @ dz2, "b2": dz2.sum(0)}


def log_loss(params, x, y):
    _, p = forward(params, x)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


# %% [markdown]
# Is it right? The data are four clouds of points. Opposite clouds belong together, so no straight line parts the two
# kinds: this is the famous XOR. We compare with `jax.grad`, and with the nudge test on a few weights.

# %%
draw = np.random.default_rng(3)
centres = np.array([[-1, -1], [1, 1], [-1, 1], [1, -1]])
x = np.repeat(centres, 40, axis=0) + draw.normal(scale=0.35, size=(160, 2))
y = np.repeat([0.0, 0.0, 1.0, 1.0], 40)[:, None]
params = {"W1": draw.normal(size=(2, 4)), "b1": np.zeros(4), "W2": draw.normal(size=(4, 1)), "b2": np.zeros(1)}


def loss_in_jax(params):
    h = jax.nn.sigmoid(x @ params["W1"] + params["b1"])
    p = jax.nn.sigmoid(h @ params["W2"] + params["b2"])
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


ours, theirs = backward(params, x, y), jax.grad(loss_in_jax)(params)
for name in params:
    assert np.allclose(ours[name], theirs[name], atol=1e-6)
    first = ours[name][0].ravel()[0], theirs[name][0].ravel()[0]
    print(f"{name}: shape {ours[name].shape!s:7} first entry {first[0]:+.5f}, jax.grad {first[1]:+.5f}")

moved = {**params, "W1": params["W1"] + 1e-5 * np.eye(2, 4)}  # two weights at once
change = (log_loss(moved, x, y) - log_loss(params, x, y)) / 1e-5
assert np.isclose(change, ours["W1"][0, 0] + ours["W1"][1, 1], atol=1e-5)

# %% [markdown]
# ## Learning with it
#
# Two thousand steps of gradient descent with *our* slopes. The single neuron below it can only draw a line, and stays
# near the loss of a coin, 0.69.

# %%
history, rate = [], 1.0
for _ in range(2000):
    history.append(log_loss(params, x, y))
    slopes = backward(params, x, y)
    params = {name: value - rate * slopes[name] for name, value in params.items()}

w, b, neuron = np.zeros((2, 1)), 0.0, []
for _ in range(2000):
    p = sigmoid(x @ w + b)
    neuron.append(-np.mean(y * np.log(p) + (1 - y) * np.log(1 - p)))
    w, b = w - rate * x.T @ (p - y) / len(y), b - rate * (p - y).mean()

figure, axes = plt.subplots(1, 2, figsize=(8.5, 3.4))
axes[0].plot(neuron, label="a single neuron")
axes[0].plot(history, label="a hidden layer of 4")
axes[0].set(xlabel="step", ylabel="log loss", ylim=(0, None))
axes[0].legend()
grid = np.linspace(-2.2, 2.2, 100)
points = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
says = forward(params, points)[1].reshape(100, 100)
axes[1].contourf(grid, grid, says, levels=np.linspace(0, 1, 11), cmap="RdBu_r", alpha=0.7)
axes[1].scatter(*x.T, c=y[:, 0], cmap="RdBu_r", s=12, edgecolors="white", linewidths=0.4)
axes[1].set_title("what the hidden layer makes of it")
plt.show()

right = ((forward(params, x)[1] > 0.5) == y).mean()
print(f"right: {right:.0%} with a hidden layer, {((p > 0.5) == y).mean():.0%} with a single neuron")
assert right > 0.95

# %% [markdown]
# ## Why backwards?
#
# We could have found every slope by the nudge test: one run of the network for each weight. With a million weights, a
# million runs, for one step. Going backwards, the slope of the loss by a layer's output is computed once and serves all
# the weights ahead of it. The cost is a small multiple of a single run, whatever the number of weights. Let us count
# the multiplications for our little network and for a larger one.

# %%
for sizes in ((2, 4, 1), (784, 100, 10)):
    weights = sum(a * b for a, b in pairwise(sizes))
    # Backwards each matrix is met twice: once for the slope by its weights, once for that by its input.
    print(f"layers {sizes}: one run {weights:,}, nudging every weight {weights**2:,}, backwards {2 * weights:,}")

# %% [markdown]
# `jax.grad` does exactly this for any program, by the local rules of each operation. It is called reverse-mode
# automatic differentiation. From here on we let it do the work.
#
# ## Try it
#
# 1. Give the hidden layer 2 neurons, then 1. How many does XOR need? Run it with a few seeds.
# 2. Begin with all weights 0. Nothing is learned: which line of `backward` tells why?
# 3. Replace the hidden sigmoid by tanh, whose slope is $1 - h^2$. Only two lines change.
#
# ## Where to go from here
#
# [experiments/backprop.py](../experiments/backprop.py) has every derivative of such a network beside that of
# `jax.grad`, those of the values on the way too. In the library, `jax.grad` stands in `make_train_step` in
# [jaxdl/train.py](../jaxdl/train.py), and the operations of [jaxdl/ops](../jaxdl/ops) have backward passes written by
# hand, to be faster. Next: [5. Activations](05_activations.ipynb), and what goes wrong when many slopes are multiplied.
