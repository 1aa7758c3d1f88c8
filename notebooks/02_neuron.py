# %% [markdown]
# # 2. A neuron
#
# Who buys an insurance? We know the age of 28 people, and whether they can afford it. A single artificial neuron learns
# the rest. At the end of this notebook you can
#
# - compute a neuron's answer with pencil and paper,
# - say what the log loss measures, and why it is not simply the number of mistakes,
# - derive the two lines of code that make a neuron learn,
# - train the same neuron with `jaxdl.fit`, and see that it does nothing else.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxdl
from jaxdl import data, losses, models

jaxdl.parallel.configure()  # keeps compiled programs for the next time

# %% [markdown]
# ## The data
#
# The table is made up, but like many real ones: the older buy more often, those who can afford it a little more, and
# there are exceptions. We divide ages by 100, so that both columns lie between 0 and 1; [notebook
# 3](03_gradient_descent.ipynb) shows what that is good for.

# %%
draw = np.random.default_rng(12)
age = draw.integers(18, 63, size=28)
affordable = draw.integers(2, size=28)
bought = (age / 100 + 0.15 * affordable + draw.normal(scale=0.1, size=28) > 0.5).astype(int)
x = np.column_stack([age / 100, affordable]).astype(np.float32)  # [28,2]
y = bought.astype(np.float32)  # [28]

print("age  affordable  bought")
for row in range(5):
    print(f"{age[row]:3}  {affordable[row]:10}  {bought[row]:6}")
print("…")
print(f"{len(y)} people, {bought.sum()} of them bought")

# %% [markdown]
# ## What a neuron computes
#
# It weighs each input, adds up, adds a bias, and squeezes the sum into a probability:
#
# $$z = w_1 x_1 + w_2 x_2 + b, \qquad p = \sigma(z) = \frac{1}{1 + e^{-z}}.$$
#
# The function $\sigma$ is called the sigmoid. It turns any number into one between 0 and 1: a large $z$ is a confident
# yes, a very negative one a confident no, and 0 is "I do not know", $p = 1/2$. The number $z$ ahead of it is called a
# *logit*.


# %%
def sigmoid(z):
    return 1 / (1 + np.exp(-z))


z = np.linspace(-6, 6, 200)
plt.figure(figsize=(5, 2.8))
plt.plot(z, sigmoid(z))
plt.plot(0, 0.5, "ko")
plt.xlabel("z, the weighted sum")
plt.ylabel("p, the probability")
plt.title("the sigmoid")
plt.show()

# %% [markdown]
# With weights of 1 and a bias of 0, what does the neuron say of a 30-year-old who cannot afford it, and of a
# 60-year-old who can?

# %%
w, b = np.ones(2), 0.0
for person in ([0.30, 0], [0.60, 1]):
    z = person @ w + b
    print(f"z = 1 · {person[0]} + 1 · {person[1]} + 0 = {z:.2f}, so p = {sigmoid(z):.2f}")

# %% [markdown]
# It says yes to both, so it has much to learn. To learn, it needs a measure of how wrong it is.
#
# ## The log loss
#
# If someone bought ($y = 1$), the neuron should have given a high probability $p$ to that; if not ($y = 0$), a high
# $1 - p$. Let us call the probability that it gave to what really happened $q$. Of all people together it is the
# product of their $q$. A product of many numbers below 1 is tiny and awkward, so we take its logarithm, which makes a
# sum of it, and change the sign, so that lower is better:
#
# $$L = -\frac{1}{N} \sum_{i=1}^N \log q_i = -\frac{1}{N} \sum_{i=1}^N \big[\, y_i \log p_i + (1 - y_i) \log (1 - p_i)
# \,\big].$$
#
# This is the **log loss**, or binary cross-entropy. Who is unsure pays $-\log 0.5 \approx 0.69$. Who is sure and right
# pays next to nothing. Who is sure and wrong pays a lot.

# %%
q = np.linspace(0.01, 1, 200)
plt.figure(figsize=(5, 2.8))
plt.plot(q, -np.log(q))
labels = ((0.05, "sure and wrong", 0.03, 0.1), (0.5, "unsure", 0.03, 0.4), (0.95, "sure and right", -0.27, 0.55))
for at, text, left, up in labels:
    loss = -np.log(at)
    plt.plot(at, loss, "ko")
    plt.annotate(f"{text}: {loss:.2f}", (at + left, loss + up))
plt.xlabel("q, the probability that was given to what happened")
plt.ylabel("loss")
plt.show()


def log_loss(w, b):
    p = sigmoid(x @ w + b)
    return -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))


print(f"at the beginning: {log_loss(w, b):.3f}; a coin would have {-np.log(0.5):.3f}")

# %% [markdown]
# Why not count mistakes instead? Move a weight by a hair and the count stays the same, so it gives no hint in which
# direction to go. The log loss answers to every small change.
#
# ## Which way is down?
#
# How does the loss of one person change with $z$? By the chain rule, from the loss to $p$ and from $p$ to $z$. For the
# sigmoid, $\dfrac{dp}{dz} = p\,(1-p)$ (try it: differentiate $1/(1+e^{-z})$). For the loss,
# $\dfrac{dL}{dp} = -\dfrac{y}{p} + \dfrac{1-y}{1-p} = \dfrac{p - y}{p\,(1-p)}$. Multiply, and nearly everything
# cancels:
#
# $$\frac{dL}{dz} = \frac{p - y}{p\,(1-p)} \cdot p\,(1-p) = p - y.$$
#
# The slope is simply the error: what the neuron said, minus what was true. And since $z = w_1 x_1 + w_2 x_2 + b$, a
# weight's slope is the error times its input, a bias's the error itself, each averaged over all people:
#
# $$\frac{\partial L}{\partial w_j} = \frac{1}{N} \sum_i (p_i - y_i)\, x_{ij}, \qquad
# \frac{\partial L}{\partial b} = \frac{1}{N} \sum_i (p_i - y_i).$$
#
# We need not trust the algebra. `jax.grad` differentiates the code of the loss, and both agree.


# %%
def slopes(w, b):
    error = sigmoid(x @ w + b) - y  # [28]
    return error @ x / len(x), error.mean()


def loss_in_jax(parameters):
    w, b = parameters
    p = jax.nn.sigmoid(x @ w + b)
    return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


by_hand, by_jax = slopes(w, b), jax.grad(loss_in_jax)((jnp.ones(2), 0.0))
print(f"by hand:  w1 {by_hand[0][0]:.4f}  w2 {by_hand[0][1]:.4f}  b {by_hand[1]:.4f}")
print(f"jax.grad: w1 {by_jax[0][0]:.4f}  w2 {by_jax[0][1]:.4f}  b {by_jax[1]:.4f}")
assert np.allclose(by_hand[0], by_jax[0], atol=1e-6)

# %% [markdown]
# All three slopes are positive: to lower the loss, make all three a little smaller. That is all there is to learning.
# Take a small step against the slopes, compute them anew where you are (they will have changed, and may point the other
# way), and do it again:
#
# $$w \leftarrow w - \eta\, \frac{\partial L}{\partial w}, \qquad
# b \leftarrow b - \eta\, \frac{\partial L}{\partial b}.$$
#
# The step size $\eta$ is the **learning rate**.

# %%
w, b, rate, history = np.ones(2), 0.0, 0.5, []
for _ in range(3000):
    history.append(log_loss(w, b))
    slope_w, slope_b = slopes(w, b)
    w, b = w - rate * slope_w, b - rate * slope_b
print(f"w1 {w[0]:.2f}  w2 {w[1]:.2f}  b {b:.2f}  loss {log_loss(w, b):.3f}")

plt.figure(figsize=(5, 2.8))
plt.plot(history)
plt.axhline(-np.log(0.5), color="gray", linestyle="--")
plt.annotate("a coin", (2600, 0.72))
plt.xlabel("step")
plt.ylabel("log loss")
plt.ylim(0, 0.85)
plt.show()

# %% [markdown]
# ## What it has learned
#
# The neuron's opinion by age, for those who can and those who cannot afford the insurance. Where a curve crosses one
# half, the answer turns from no to yes. The dots are the 28 people, the blue ones lifted a little.

# %%
ages = np.linspace(15, 65, 100)
plt.figure(figsize=(6, 3.2))
for can, colour, text in ((0, "C1", "cannot afford it"), (1, "C0", "can afford it")):
    plt.plot(ages, sigmoid(ages / 100 * w[0] + can * w[1] + b), colour, label=text)
    rows = affordable == can
    plt.plot(age[rows], bought[rows] + (0.03 if can else 0), "o", color=colour, alpha=0.6)
plt.axhline(0.5, color="gray", linewidth=0.8)
plt.xlabel("age")
plt.ylabel("probability of buying")
plt.legend(loc="center left")
plt.show()

right = (sigmoid(x @ w + b) >= 0.5) == y
print(f"right for {right.sum()} of {len(y)} people")

# %% [markdown]
# ## The same with the library
#
# In jaxdl this neuron is the model `"neuron"`; its weights are in `variables`, a tree beside it. A `Phase` says how to
# train: 3,000 epochs at the rate 0.5 by plain gradient descent, with nothing clever added. One batch holds all the
# people, so an epoch is a single step. Started from the same numbers, it comes to the same numbers.

# %%
people = data.from_arrays(x, bought, classes=("no", "yes"))
start = {"params": {"head": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}}
phase = jaxdl.Phase(
    3000, 0.5, optimizer="gradient-descent", schedule="constant", warmup=0, weight_decay=0, clip_norm=None
)
result = jaxdl.fit(
    models.create("neuron", 1),
    people,
    phases=phase,
    variables=start,
    loss=losses.binary_cross_entropy,
    batch_size=len(people),
    progress=False,
)
head = result.variables["params"]["head"]
print(f"w1 {head['kernel'][0, 0]:.2f}  w2 {head['kernel'][1, 0]:.2f}  b {head['bias'][0]:.2f}")
assert np.allclose(head["kernel"][:, 0], w, atol=1e-2)

# %% [markdown]
# The model's output is the logit $z$, not $p$: the loss takes the sigmoid itself, in a way that stays exact when $p$ is
# so near to 0 or 1 that a computer cannot tell the difference.

# %%
someone = np.array([[0.47, 1.0]], np.float32)
logit = jaxdl.predict(result.model, result.variables, someone)[0, 0]
print(f"47 years old, can afford it: z = {logit:.2f}, p = {sigmoid(logit):.2f}")

# %% [markdown]
# ## Try it
#
# 1. Set the learning rate to 0.01, and to 50. What does the curve of the loss look like?
# 2. Let one person of 20 who cannot afford it buy (`bought[row] = 1`). Which of the three numbers moves most?
# 3. Measure the error as $(p - y)^2$ instead. Derive its slope by $z$. What happens to it when the neuron is sure and
#    wrong?
#
# ## Where to go from here
#
# [experiments/neuron.py](../experiments/neuron.py) does this in three ways on the course's own table, and comes to the
# published weights. In the library, the loss is `binary_cross_entropy` in [jaxdl/losses.py](../jaxdl/losses.py), and a
# step of training `make_train_step` in [jaxdl/train.py](../jaxdl/train.py). Next: [3. Gradient
# descent](03_gradient_descent.ipynb).
