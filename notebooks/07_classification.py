# %% [markdown]
# # 7. Classification, seen from above
#
# With two inputs, everything that a network says can be drawn on paper: a colour for each point of the plane. At the
# end of this notebook you can
#
# - read a decision boundary, and tell where a network is sure,
# - say what a single hidden neuron does, and how a few of them together enclose a shape,
# - tell a network that is too small from one that is too large for its data.

# %%
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_circles, make_moons

import jaxdl
from jaxdl import data, explain, losses, models, report

jaxdl.parallel.configure()

# %% [markdown]
# ## Two rings
#
# The points of the inner ring are class 1, those of the outer ring class 0. There is no line that parts them.

# %%
points, labels = make_circles(500, noise=0.06, factor=0.5, random_state=1)
rings = data.from_arrays(points.astype(np.float32), labels, classes=("outer", "inner"))


def learn(source, epochs=60, **options):
    """A dense network with a single output, and its accuracy on what it was trained on."""
    model = models.create("dense", 1, **options)
    phase = jaxdl.Phase(epochs, 1e-2)
    result = jaxdl.fit(model, source, phases=phase, loss=losses.binary_cross_entropy, progress=False)
    figures = jaxdl.evaluate(result.model, result.variables, source, loss=losses.binary_cross_entropy)
    return result, figures["accuracy"]


def drawn(axis, result, source, title):
    says = partial(jaxdl.predict, result.model, result.variables, batch_size=4096)
    report.decision_boundary(says, source.inputs, source.labels, axis=axis)
    axis.set_title(title)
    if axis.get_legend() is not None:
        axis.get_legend().remove()


networks = {
    "no hidden layer": {"hidden": ()},
    "2 hidden layers, linear": {"hidden": (16, 16), "activation": "linear"},
    "1 hidden layer, ReLU": {"hidden": (16,)},
}
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
found = {}
for axis, (name, options) in zip(axes, networks.items(), strict=True):
    result, found[name] = learn(rings, **options)
    drawn(axis, result, rings, f"{name}: {found[name]:.0%}")
plt.show()
assert found["1 hidden layer, ReLU"] > 0.98 > 0.7 > found["2 hidden layers, linear"]

# %% [markdown]
# The first network is a single neuron: it draws a line, and whichever it draws, about half of each ring lies on either
# side. The second has more weights, but without an activation two layers are one ([notebook 5](05_activations.ipynb)),
# and it guesses as well. The third has a bend in it, and closes a shape around the inner ring.
#
# ## What a hidden neuron does
#
# Let us look inside, at a network with only four hidden neurons. Each of them computes a weighted sum of the two
# coordinates, and cuts off what is below 0. So each draws *one line*, says 0 on one side of it, and on the other side
# the more, the further away. `explain.layer_outputs` gives what every layer puts out.

# %%
small, accuracy = learn(rings, epochs=150, hidden=(4,))
print(f"four hidden neurons: {accuracy:.0%}")

side = np.linspace(-1.4, 1.4, 80, dtype=np.float32)
plane = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)  # [6400,2]
outputs = explain.layer_outputs(small.model, small.variables, plane)
print({path: output.shape for path, output in outputs.items()})

figure, axes = plt.subplots(1, 5, figsize=(11, 2.6))
for n, axis in enumerate(axes[:4]):
    axis.contourf(side, side, outputs["dense_0_relu"][:, n].reshape(80, 80), levels=12, cmap="Blues")
    axis.scatter(*points.T, c=labels, cmap="coolwarm", s=2)
    axis.set(title=f"neuron {n}", xticks=[], yticks=[], aspect="equal")
drawn(axes[4], small, rings, "all together")
axes[4].set(xticks=[], yticks=[])
plt.show()

# %% [markdown]
# The output adds them up, each with a weight of its own, and a bias. Where the sum is above 0, it says "inner". With
# three or four lines one can already fence in a ring; more neurons make the fence rounder.

# %%
head = small.variables["params"]["head"]
print("weights of the four neurons:", np.asarray(head["kernel"][:, 0]).round(1))
print("bias:", np.asarray(head["bias"]).round(1))
sums = np.asarray(outputs["dense_0_relu"]) @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
assert np.allclose(sums, outputs["head"], atol=1e-3)

# %% [markdown]
# ## The hidden layer moves the points
#
# There is another way to look at it. To the last layer, which can only draw a straight cut, the hidden layer's outputs
# *are* the data. So the hidden layers have to move the points to where a straight cut is enough. Here a network is
# built with two neurons in its last hidden layer, so that we can draw where they go.

# %%
funnel, accuracy = learn(rings, epochs=150, hidden=(16, 2), activation="tanh")
moved = explain.layer_outputs(funnel.model, funnel.variables, rings.inputs)["dense_1_tanh"]
figure, axes = plt.subplots(1, 2, figsize=(7.5, 3.4))
for axis, where, title in ((axes[0], rings.inputs, "the inputs"), (axes[1], moved, "as the last layer sees them")):
    for ring, colour in ((0, "C0"), (1, "C3")):
        axis.plot(*np.asarray(where)[labels == ring].T, ".", color=colour, alpha=0.6)
    axis.set_title(title)
kernel, bias = (np.asarray(funnel.variables["params"]["head"][part]) for part in ("kernel", "bias"))
line = np.linspace(-1.2, 1.2, 2)
axes[1].plot(line, -(kernel[0, 0] * line + bias[0]) / kernel[1, 0], "k--")
axes[1].set(xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
plt.show()
print(f"the dashed line parts them: {accuracy:.0%}")
assert accuracy > 0.98

# %% [markdown]
# That is what is meant by *features*: numbers, made from the inputs, in which the question becomes easy. In [notebook
# 11](11_transfer_learning.ipynb) we shall take features that somebody else's network has learned.
#
# ## Too small, too large
#
# Two half moons with a lot of noise. Some points lie among the others, and no boundary should go out of its way for
# them. We train on 60 points, and measure on 1,000 others of the same kind.

# %%
crowd, sides = make_moons(1060, noise=0.35, random_state=2)
few = data.from_arrays(crowd[:60].astype(np.float32), sides[:60])
others = data.from_arrays(crowd[60:].astype(np.float32), sides[60:])
sizes = {"none": (), "8": (8,), "100, 100, 100": (100, 100, 100)}
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.4))
for axis, (name, hidden) in zip(axes, sizes.items(), strict=True):
    result, known = learn(few, epochs=200, hidden=hidden)
    new = jaxdl.evaluate(result.model, result.variables, others, loss=losses.binary_cross_entropy)["accuracy"]
    drawn(axis, result, few, f"hidden: {name}\nits 60 points {known:.0%}, new ones {new:.0%}")
    print(f"hidden {name:14} training points {known:.2f}, new points {new:.2f}")
plt.show()

# %% [markdown]
# The large network is right about all of its 60 points, by drawing islands and bays around strays. On new points that
# is worse than the smooth curve of the small one. How much worse depends on the draw; that its two figures lie far
# apart does not. It is **overfitting**, seen from above: the boundary follows accidents. Against it help more data, a
# smaller network, fewer epochs, or the means of [notebook 10](10_augmentation.ipynb).
#
# ## Try it
#
# 1. Train three hidden neurons on the rings, then two. How few can enclose a ring? Try several seeds (`seed=` of
#    `jaxdl.fit`).
# 2. Use `tanh` for the small network. How does the boundary look different?
# 3. Train the large network on 1,000 of the moons, and measure on the other 60. Are there still islands?
#
# ## Where to go from here
#
# [experiments/classification.py](../experiments/classification.py) is the script of this chapter. What is drawn here is
# `decision_boundary` in [jaxdl/report/classes.py](../jaxdl/report/classes.py), what layers put out comes from
# [jaxdl/explain.py](../jaxdl/explain.py). Next: [8. Precision and recall](08_precision_recall.ipynb), on why 95 % right
# can be worthless.
