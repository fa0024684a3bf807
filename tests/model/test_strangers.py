"""Model files from strangers: nothing that they say is believed before it is checked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch

import distillkit
from distillkit.errors import CheckpointError
from distillkit.model.file import save_model
from distillkit.model.sources import named_sources
from distillkit.model.tensors import read_tensors, write_tensors


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A teacher of CompressAI's pair, and how to write one like it with other claims or weights."""
    options = {"teacher": {"N": 8, "M": 12}, "student": {"N": 8, "M": 12}}
    plugins = distillkit.load_plugins()
    pair_class, config = plugins.configure("pair", "models.compressai", options, "test")
    pair = pair_class(config)
    file = tmp_path_factory.mktemp("model") / "model.safetensors"
    codec = distillkit.CompressAIAdapter(pair.build_teacher())
    save_model(file, codec, "models.compressai", config.model_dump(mode="json"), "teacher", 0.01)
    return file


def forged(teacher, folder, change=lambda about: None, text=None, spoil=None):
    tensors, metadata = read_tensors(teacher)
    about = json.loads(metadata["model"])
    change(about)
    if spoil:
        spoil(tensors)
    file = folder / "forged.safetensors"
    write_tensors(file, tensors, {**metadata, "model": json.dumps(about) if text is None else text})
    return file


def refused(file, match):
    with pytest.raises(CheckpointError, match=match):
        distillkit.load_model(file)


def test_the_original_loads(teacher, tmp_path):
    assert distillkit.load_model(teacher).part == "teacher"
    assert distillkit.load_model(forged(teacher, tmp_path)).lmbda == 0.01


@pytest.mark.parametrize(
    "text", ["", "{", "null", "[]", "3", '"x"', "{}", "[" * 100_000, '{"pair": 1}', '{"pair": "a", "part": "evil"}']
)
def test_metadata_of_every_wrong_shape(teacher, tmp_path, text):
    refused(forged(teacher, tmp_path, text=text), "expected a description of the model in its metadata")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("part", "evil"),
        ("part", None),
        ("lmbda", "0.01"),
        ("lmbda", -1),
        ("lmbda", 10**400),
        ("lmbda", {"low": 0.1, "high": 10**400}),
        ("lmbda", float("nan")),
        ("options", []),
        ("options", None),
        ("pair", ["models.compressai"]),
        ("fingerprint", "x" * 32),
        ("fingerprint", 7),
        ("objective", "core.mse"),
        ("objective", {}),
        ("objective", {"name": ["core.mse"]}),
        ("more", 1),
    ],
)
def test_a_field_of_the_wrong_type(teacher, tmp_path, key, value):
    refused(forged(teacher, tmp_path, lambda about: about.update({key: value})), f"got a damaged one \\({key}")


def test_sources_of_weights_are_not_opened(teacher, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)  # opening it would hang
    for source in ({"weights": str(fifo)}, {"pretrained": True, "quality": 4, "N": None, "M": None}):
        file = forged(teacher, tmp_path, lambda about, source=source: about["options"]["teacher"].update(source))
        refused(file, "options that name another source of weights")


def light(teacher, folder, options, part="student"):
    """A file of `models.light` that its options alone make one: no more of it is looked at."""
    return forged(teacher, folder, lambda about: about.update(pair="models.light", options=options, part=part))


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_sources_in_either_part_are_not_opened(teacher, tmp_path, part):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    refused(light(teacher, tmp_path, {"teacher": str(fifo)}, part), r"another source of weights \(teacher")
    refused(light(teacher, tmp_path, {"teacher": "zoo:lite-student"}, part), r"source of weights \(teacher")
    refused(light(teacher, tmp_path, {}, part), r"another source of weights \(teacher")  # its default
    for source in ({"weights": str(fifo)}, {"pretrained": True, "quality": 4}):
        about = {"pair": "models.compressai", "options": {"teacher": source}, "part": "teacher"}
        kept = {"codec": about | {"lmbda": 0.01, "fingerprint": "0" * 32}, "analysis": {}}
        refused(light(teacher, tmp_path, kept, part), r"source of weights \(codec\.(teacher\.weights|pretrained)")


class Inner(distillkit.ComponentConfig):
    """Options inside others."""

    files: tuple[Path, ...] = ()
    name: str = "plain"
    hub: Annotated[str, distillkit.Source()] | None = None


class Options(distillkit.ComponentConfig):
    """Options of a pair."""

    inner: Inner = Inner()
    more: dict[str, Any] | None = None
    file: Path | None = None
    url: str = ""


@pytest.mark.parametrize(
    ("options", "sources"),
    [
        ({}, []),
        ({"inner": {"name": "resnet-50.a1/in1k"}, "url": "none", "more": {"a": 1}}, []),
        ({"file": "x"}, ["file"]),
        ({"inner": {"files": ["a", "b"]}}, ["inner.files.0", "inner.files.1"]),
        ({"inner": {"hub": "someone/model"}}, ["inner.hub"]),
        ({"url": "https://example.org/x"}, ["url"]),
        ({"url": "/dev/zero"}, ["url"]),
        ({"url": r"c:\x"}, ["url"]),
        ({"inner": {"name": "weights/resnet.pth"}, "more": {"a": "x.Safetensors"}}, ["inner.name", "more.a"]),
        ({"more": {"deep": [{"weights": "~/x"}]}, "inner": {"name": "../x"}}, ["inner.name", "more.deep.0.weights"]),
    ],
)
def test_what_counts_as_a_source(options, sources):
    assert list(named_sources(Options.model_validate(options))) == sources


def test_a_students_file_may_say_where_its_teacher_came_from(tmp_path):
    options = {"teacher": {"N": None, "M": None, "weights": str(tmp_path / "gone")}, "student": {"N": 8, "M": 12}}
    pair_class, config = distillkit.load_plugins().configure("pair", "models.compressai", options, "test")
    codec = distillkit.CompressAIAdapter(pair_class(config).build_student())
    file = tmp_path / "model.safetensors"
    save_model(file, codec, "models.compressai", config.model_dump(mode="json"), "student", 0.01)
    assert distillkit.load_model(file).part == "student"


def test_weights_that_are_no_file_are_not_waited_for(tmp_path):
    from distillkit.training.objectives.distances import Lpips

    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(distillkit.DistillkitError, match="expected a file, got a folder or device"):
        Lpips(tmp_path / "fifo")
    options = {"teacher": {"weights": str(tmp_path / "fifo")}}
    pair_class, config = distillkit.load_plugins().configure("pair", "models.compressai", options, "test")
    with pytest.raises(distillkit.PairError, match="expected a file, got a folder or device"):
        pair_class(config).build_teacher()


def test_sizes_are_compared_before_there_is_memory_for_them(teacher, tmp_path):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    file = forged(teacher, tmp_path, lambda about: about["options"]["teacher"].update(N=4000, M=4000))
    refused(file, r"its weights do not fit its pair and options: \d+ differ, such as .*: expected shape")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB; its weights take 5 GB


@pytest.mark.parametrize("synthesis", [{"width": 10**400}, {"width": 200_000}, {"width": 1, "blocks": 10**9}])
def test_a_codec_that_computes_while_it_is_built_is_bounded_too(tmp_path, synthesis):
    plugins = distillkit.load_plugins()
    options = {"teacher": "zoo:lite-student", "synthesis": {"width": 8}}
    pair_class, config = plugins.configure("pair", "models.light", options, "test")
    pair = pair_class(config)
    codec, file = pair.build_student(), tmp_path / "light.safetensors"
    save_model(file, codec, "models.light", pair.options_of("student", codec.module), "student", 0.01)
    assert distillkit.load_model(file).pair == "models.light"
    refused(
        forged(file, tmp_path, lambda about: about["options"]["synthesis"].update(synthesis)),
        "cannot be built with the options in the file .*(Overflow|many times those in the file)",
    )


@pytest.mark.parametrize("name", ["_quantized_cdf", "_cdf_length", "_offset"])
def test_tables_that_are_missing_or_none(teacher, tmp_path, name):
    key = f"gaussian_conditional.{name}"
    assert key in read_tensors(teacher)[0]
    refused(forged(teacher, tmp_path, spoil=lambda tensors: tensors.pop(key)), "its weights do not fit pair")
    scalar = torch.zeros((), dtype=torch.int32)
    refused(forged(teacher, tmp_path, spoil=lambda tensors: tensors.update({key: scalar})), "altered since|do not fit")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite(teacher, tmp_path, value):
    file = forged(teacher, tmp_path, spoil=lambda tensors: tensors["g_s.0.weight"].view(-1)[3:4].fill_(value))
    refused(file, r"expected finite weights, got some in g_s\.0\.weight")


def test_altered_weights_do_not_pass_as_the_original(teacher, tmp_path):
    file = forged(teacher, tmp_path, spoil=lambda tensors: tensors["g_s.0.weight"].mul_(1.001))
    refused(file, "altered since it was trained")


def test_a_tensor_too_many_or_too_few(teacher, tmp_path):
    refused(forged(teacher, tmp_path, spoil=lambda t: t.update(extra=torch.zeros(2))), "1 differ, such as extra")
    refused(forged(teacher, tmp_path, spoil=lambda t: t.pop("g_s.0.bias")), r"1 differ, such as g_s\.0\.bias")
