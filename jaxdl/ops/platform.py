"""For which kind of hardware operations are written as they are traced."""

import jax


def platform() -> str:
    """Where what is traced now is to run: "cpu", "gpu" or "tpu".

    That of `jax.default_device`, where one is set, so that a program can be compiled for hardware that is not there,
    and else of JAX's default backend. JAX keeps apart what it has traced under one and another.
    """
    device = jax.config.values["jax_default_device"]
    return jax.default_backend() if device is None else getattr(device, "platform", device)
