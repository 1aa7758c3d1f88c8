# %% [markdown]
# # 5. Activations
#
# Between the layers of a network stand small functions that bend. They are why more layers can do more, and they are
# why, for a long time, many layers did not work. At the end of this notebook you can
#
# - show that layers without activations are a single layer,
# - derive that a sigmoid's slope is at most 1/4, and say what ten of them in a row do to the gradient,
# - read a picture of gradients by layer, and choose an activation for it,
# - say what is wrong with a ReLU that is dead.

# %%
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import make_circles

import jaxdl
from jaxdl import data, explain, losses, models, report
from jaxdl.models import activations

jaxdl.parallel.configure()

# %% [markdown]
# ## Two lines are a line
#
# A layer is a matrix product and a bias. Put two of them one behind the other, with nothing in between:
#
# $$(x W_1 + b_1)\, W_2 + b_2 \;=\; x \underbrace{(W_1 W_2)}_{W} + \underbrace{(b_1 W_2 + b_2)}_{b}.$$
#
# That is a single layer again, with other numbers. A hundred of them are, too. With something bent in between, the
# trick does not work, and the network can bend as well.

# %%
draw = np.random.default_rng(0)
x = draw.normal(size=(5, 3))
W1, b1, W2, b2 = draw.normal(size=(3, 8)), draw.normal(size=8), draw.normal(size=(8, 2)), draw.normal(size=2)

two_layers = (x @ W1 + b1) @ W2 + b2
one_layer = x @ (W1 @ W2) + (b1 @ W2 + b2)
print("without activation, the largest difference is below 1e-12:", np.abs(two_layers - one_layer).max() < 1e-12)

bent = np.maximum(x @ W1 + b1, 0) @ W2 + b2
print("with a ReLU in between it is", round(np.abs(bent - one_layer).max(), 1))

# %% [markdown]
# ## Four of them, and their slopes
#
# Solid lines are the functions, dashed lines their slopes. *Sigmoid* squeezes into 0 to 1, *tanh* into -1 to 1. *ReLU*,
# the rectified linear unit, is $\max(0, x)$: simpler it cannot be. *Leaky ReLU* keeps a little slope on the left.

# %%
names = ("sigmoid", "tanh", "relu", "leaky_relu")
report.activations(names)

# %% [markdown]
# ## A quarter
#
# How steep is the sigmoid at its steepest? With $\sigma(z) = 1/(1+e^{-z})$, the chain rule gives
#
# $$\sigma'(z) = \frac{e^{-z}}{(1+e^{-z})^2} = \sigma(z)\,\big(1 - \sigma(z)\big).$$
#
# A product $s\,(1-s)$ is largest in the middle, at $s = 1/2$, where it is $1/4$. And that is at its best: at $z = 5$ it
# is already less than a hundredth.

# %%
z = jnp.linspace(-8, 8, 1601)
for name in names:
    slope = jax.vmap(jax.grad(activations.by_name(name)))
    print(f"{name:10} steepest slope {slope(z).max():.2f}   slope at z = 5: {slope(jnp.array([5.0]))[0]:.4f}")

# %% [markdown]
# Backpropagation multiplies by the slope at *every* layer on the way back ([notebook 4](04_backpropagation.ipynb)).
# With sigmoids, each layer leaves at most a quarter of the gradient (the weights have a say as well, but they usually
# do not make up for it). After ten layers that is:

# %%
for layers in (1, 2, 5, 10):
    print(f"{layers:2} layers: the slopes leave at most {0.25**layers:.7f} of the gradient")

# %% [markdown]
# ## Vanishing gradients, measured
#
# Here are fresh networks of ten hidden layers, alike but for their activation, and the norm (the length) of the
# gradient at each layer, for the same batch. `explain.gradient_norms` measures it. The scale is logarithmic: each line
# of the grid is a factor of ten or more.

# %%
features = draw.normal(size=(256, 8)).astype(np.float32)
batch = {"features": features, "label": (features[:, 0] * features[:, 1] > 0).astype(np.int32)}
norms = {}
for name in names:
    model = models.create("dense", 2, hidden=(32,) * 10, activation=name)
    variables = models.init(model, jax.random.key(0), (8,))
    norms[name] = explain.gradient_norms(model, variables, batch)

for name, each in norms.items():
    ratio = each["dense_0"] / each["dense_9"]
    print(f"{name:10} gradient of the first hidden layer / of the last: {ratio:.1g}")
assert norms["sigmoid"]["dense_0"] / norms["sigmoid"]["dense_9"] < 0.25**9

report.gradient_flow(norms)

# %% [markdown]
# With sigmoids the first layer gets less than a millionth of what the last one gets. They hardly move, so what the last
# layers see is a random jumble of the inputs, and they can do little with it. With tanh and ReLU, whose slope is 1
# where they work, the gradient arrives.
#
# ## What that does to learning
#
# Two rings of points, one inside the other, and a network with five hidden layers. Same data, same seed, same number of
# epochs; only the activation differs.

# %%
points, rings = make_circles(400, noise=0.05, factor=0.6, random_state=0)
circles = data.from_arrays(points.astype(np.float32), rings)
histories, trained = {}, {}
for name in ("sigmoid", "tanh", "relu"):
    model = models.create("dense", 1, hidden=(16,) * 5, activation=name)
    phase = jaxdl.Phase(30, 5e-3)
    result = jaxdl.fit(model, circles, phases=phase, loss=losses.binary_cross_entropy, progress=False)
    histories[name], trained[name] = result.history, result
    print(f"{name:8} accuracy on the training points {result.history[-1]['accuracy']:.2f}")
assert histories["relu"][-1]["accuracy"] > 0.95 > 0.7 > histories["sigmoid"][-1]["accuracy"]

report.compare(histories)

# %% [markdown]
# The sigmoids stay at the loss of a coin, $\log 2 = 0.69$. Nothing is wrong with the data or the rate: the first layers
# simply do not hear what went wrong at the end. This is why ReLU and its relatives are in every network of the later
# notebooks.
#
# ## A dead ReLU
#
# ReLU has a danger of its own. Left of 0 its slope is not small, it is *zero*. A neuron whose sum is negative for every
# example gives 0 always, gets no gradient, and stays like that, unless the layers before it happen to change. A few
# dead neurons do no harm; a learning rate that is far too large can kill most of them in one step. Let us push biases
# down, and count.

# %%
model = models.create("dense", 1, hidden=(16,), activation="relu")
variables = models.init(model, jax.random.key(0), (2,))
for push in (0.0, -1.0, -3.0):
    params = {**variables["params"]}
    params["dense_0"] = {**params["dense_0"], "bias": jnp.full(16, push)}
    outputs = explain.layer_outputs(model, {"params": params}, circles.inputs)["dense_0_relu"]  # [400,16]
    dead = int((outputs == 0).all(0).sum())
    one = {"features": circles.inputs, "label": circles.labels}
    norm = explain.gradient_norms(model, {"params": params}, one, losses.binary_cross_entropy)["dense_0"]
    print(f"bias {push:4}: {dead:2} of 16 neurons are 0 for every point, gradient of their layer {norm:.3f}")

# %% [markdown]
# Leaky ReLU is the cure by construction: its slope on the left is small, but not zero. Others that are in use today,
# such as `silu` and `gelu`, are smooth versions of ReLU. jaxdl knows them by name:

# %%
print(", ".join(activations.NAMED))

# %% [markdown]
# ## Which one?
#
# | where | which | why |
# |---|---|---|
# | between layers | `relu`, or a relative | its slope is 1 where it works |
# | at the end, for a yes or no | sigmoid | gives a probability |
# | at the end, for one of several classes | softmax | gives probabilities that add up to 1 |
# | at the end, for a number | nothing | a price may be anything |
#
# In jaxdl a network ends without an activation; the loss (`cross_entropy`, `binary_cross_entropy`) takes the softmax or
# sigmoid itself.
#
# ## Try it
#
# 1. Draw `gradient_flow` for 3 hidden layers, and for 20. When do sigmoids begin to be a problem?
# 2. Train the five sigmoid layers for 300 epochs. Do they wake up?
# 3. Look at `elu`, `silu` and `gelu` with `report.activations`. Which of them can have a dead neuron?
#
# ## Where to go from here
#
# [experiments/activations.py](../experiments/activations.py) measures the same over several seeds. The functions are in
# [jaxdl/models/activations.py](../jaxdl/models/activations.py), the gradients by layer in
# [jaxdl/explain.py](../jaxdl/explain.py). Next: [6. Digits](06_digits.ipynb).
