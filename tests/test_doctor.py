import json
from importlib import metadata
from pathlib import Path

import jax
import pytest

from jaxdl import cli
from jaxdl.cli import doctor
from jaxdl.errors import InputError


@pytest.fixture
def caches(tmp_path):
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    yield tmp_path
    jax.config.update("jax_compilation_cache_dir", before)


def said(capsys):
    return json.loads(capsys.readouterr().out)


def test_a_machine_that_trains_has_no_trouble(caches, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "NVIDIA", Path("/nowhere"))
    cli.main(["doctor", "--json"])
    found = said(capsys)
    assert found["troubles"] == []
    assert found["devices"] == [f"{device.device_kind} ({device.platform})" for device in jax.devices()]
    assert found["versions"]["jax"] == jax.__version__
    assert 0 < found["seconds_of_a_training"] < 300
    assert {*found["extras"], *found["missing"]} == set(doctor.EXTRAS)
    assert "plots" in found["extras"]  # the tests need them
    cli.main(["doctor"])
    assert "nothing is wrong" in capsys.readouterr().out


def test_troubles_say_what_to_do(caches, monkeypatch, capsys):
    driver = caches / "version"
    driver.write_text("NVRM")
    monkeypatch.setattr(doctor, "NVIDIA", driver)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("jaxdl.fit", lambda *_, **__: type("Trained", (), {"history": [{"accuracy": 0.5}]}))
    with pytest.raises(SystemExit, match="1"):
        cli.main(["doctor", "--json"])
    unused, untaught, kept = sorted(said(capsys)["troubles"])
    assert "does not use the NVIDIA GPU" in unused
    assert "does not learn here: an accuracy of 0.50" in untaught
    assert "set JAX_COMPILATION_CACHE_DIR" in kept


@pytest.mark.parametrize("error", [RuntimeError("DNN library initialization failed\nmore"), InputError("no numbers")])
def test_where_it_does_not_train_it_says_so(error, caches, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(doctor, "NVIDIA", Path("/nowhere"))
    monkeypatch.setattr("jaxdl.fit", fail)
    with pytest.raises(SystemExit, match="1"):
        cli.main(["doctor", "--json"])
    found = said(capsys)
    assert found["troubles"] == [f"a small network does not train here: {str(error).splitlines()[0]}"]
    assert len(found["devices"]) == len(jax.devices())
    assert found["seconds_of_a_training"] is None


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend 'cuda'\nmore"), AssertionError()])
def test_where_jax_does_not_start_it_says_so(error, caches, monkeypatch, capsys):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(SystemExit, match="1"):
        cli.main(["doctor", "--json"])
    (trouble,) = said(capsys)["troubles"]
    assert trouble.startswith("JAX does not start with JAX_PLATFORMS=cuda: ")
    assert "\n" not in trouble


def test_an_extra_is_there_if_all_of_its_packages_are(monkeypatch):
    needs = {
        "jaxdl": ["numpy>=2", "one>=1; extra == 'both'", 'two[inner]<3 ; extra == "both"', "four; extra == 'other'"],
        "two": ["three>=1; python_version > '3' and extra == 'inner'"],
    }
    installed = {"one", "two"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(metadata, "requires", needs.get)
    monkeypatch.setattr(metadata, "version", version)
    assert doctor._missing("jaxdl", "both") == {"three"}
    assert doctor._missing("jaxdl", "other") == {"four"}
    installed |= {"three"}
    assert doctor._missing("jaxdl", "both") == set()
