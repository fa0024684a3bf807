"""CompressAI's own codecs: every architecture taught and teaching, weights from files, and back into CompressAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import distillkit
from distillkit.errors import CheckpointError, PairError, RecipeError
from distillkit.model.adapters import as_codec
from distillkit.taps.bank import TapBank
from distillkit.training.setup.prepare import prepare
from distillkit.training.setup.resolve import resolve

FEDS = {"feds.alignment": {}, "feds.channel_entropy": {"calibration_crops": 2}}
SMALL = {
    "bmshj2018-factorized": {"N": 8, "M": 16},
    "bmshj2018-hyperprior": {"N": 8, "M": 16},
    "mbt2018-mean": {"N": 8, "M": 16},
    "mbt2018": {"N": 8, "M": 16},
    "cheng2020-anchor": {"N": 16},
    "cheng2020-attn": {"N": 16},
    "cheng2020-anchor-checkerboard": {"N": 16},
    "elic2022-official": {"N": 8, "groups": [4, 12]},
    "elic2022-chandelier": {"N": 8, "groups": [4, 4, 8]},
}


def pair(**options):
    _, config = distillkit.load_plugins().configure("pair", "models.compressai", options, "test")
    return distillkit.load_plugins().get("pair", "models.compressai", "test")(config)


def small(architecture):
    return {"architecture": architecture, **SMALL[architecture]}


def distil(recipe, folder, plugins, teacher, student, num_steps=5):
    options = {"name": "models.compressai", "teacher": teacher, "student": student}
    first = recipe(pair=options, trains="teacher", num_steps=1, schedule={"name": "core.constant"})
    model = distillkit.train(first, folder / "teacher", plugins=plugins)
    second = recipe(pair=options, losses=FEDS, teacher=model, num_steps=num_steps)
    return distillkit.load_model(distillkit.train(second, folder / "student", plugins=plugins), plugins)


@pytest.mark.parametrize(
    "architecture",
    [name if name == "mbt2018-mean" else pytest.param(name, marks=pytest.mark.slow) for name in SMALL],
)
def test_every_architecture_goes_through_the_three_phases_and_codes(architecture, recipe, tmp_path, plugins):
    codec = small(architecture)
    model = distil(recipe, tmp_path, plugins, codec, codec)
    provider = plugins.get("taps", "models.by_resolution", "test")
    taps = distillkit.find_taps(model.codec, provider(provider.Config()), (64, 64))
    assert {"analysis.1/2", "analysis.1/4", "analysis.1/8", "latent", "synthesis.1/2", "reconstruction"} <= set(taps)
    assert ("entropy_parameters" in taps) == (architecture != "bmshj2018-factorized")
    picture = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    coder = distillkit.ImageCodec(model.codec, model.fingerprint)
    data = coder.encode(picture)
    assert np.array_equal(coder.decode(data), distillkit.ImageCodec(model.codec, model.fingerprint).decode(data))


@pytest.mark.parametrize("architecture", ["elic2022-official", "elic2022-chandelier"])
def test_the_entropy_parameters_of_channel_groups_are_a_list_with_scales_first(architecture, plugins):
    """What the entropy model was given, in the order of the latent's channels, however the codec chunks it."""
    torch.manual_seed(0)
    codec = as_codec(pair(student=small(architecture)).build_student())
    provider = plugins.get("taps", "models.by_resolution", "test")
    bank = TapBank(codec, distillkit.find_taps(codec, provider(provider.Config()), (64, 64)), "student")
    images, given = torch.rand(1, 3, 64, 64), []
    models = [module for module in codec.module.modules() if type(module).__name__ == "GaussianConditional"]
    for model in models:
        model.register_forward_hook(
            lambda _, args, kwargs, __: given.append((args[1], kwargs["means"])), with_kwargs=True
        )
    _, shapes = bank.probe(images)
    given.clear()
    _, features = bank.run(images, ["entropy_parameters"])
    assert len(given) == len(SMALL[architecture]["groups"]) == len(bank.groups["entropy_parameters"])
    groups = features["entropy_parameters"].split(list(bank.groups["entropy_parameters"]), 1)
    for parameters, (scales, means) in zip(groups, given, strict=True):
        assert torch.equal(parameters, torch.cat([scales, means], 1))
    assert shapes["entropy_parameters"].channels == 2 * sum(SMALL[architecture]["groups"])


@pytest.mark.slow
def test_gaussians_of_groups_teach_those_of_other_groups_and_of_none(recipe, tmp_path, plugins):
    teacher = {"architecture": "elic2022-chandelier", "N": 8, "groups": [4, 4, 8]}
    first = recipe(
        pair={"name": "models.compressai", "teacher": teacher},
        trains="teacher",
        num_steps=1,
        schedule={"name": "core.constant"},
    )
    model = distillkit.train(first, tmp_path / "teacher", plugins=plugins)
    for number, student in enumerate(
        [{"architecture": "elic2022-official", "N": 8, "groups": [4, 12]}, small("mbt2018-mean")]
    ):
        second = recipe(
            pair={"name": "models.compressai", "teacher": teacher, "student": student},
            losses={"kd.gaussian_kl": {}, "feds.channel_entropy": {"calibration_crops": 2}},
            schedule={"name": "core.constant"},
            teacher=model,
            num_steps=2,
        )
        distillkit.train(second, tmp_path / f"student{number}", plugins=plugins)


def test_likelihoods_that_are_listed_by_group_are_joined():
    class Listing(torch.nn.Module):
        def forward(self, x):
            y = torch.full((1, 2, 4, 4), 0.5)
            return {"x_hat": x, "likelihoods": {"y": [y, y / 2], "z": y}}

        def compress(self, x): ...

        def decompress(self, strings, shape): ...

    likelihoods = as_codec(Listing()).forward(torch.rand(1, 3, 64, 64)).likelihoods
    assert likelihoods["y"].shape == (1, 4, 4, 4)
    assert likelihoods["z"].shape == (1, 2, 4, 4)


def test_elic_teaches_a_checkerboard(recipe, tmp_path, plugins):
    student = {"architecture": "cheng2020-anchor-checkerboard", "N": 12}  # and a narrower latent than the teacher's 16
    model = distil(recipe, tmp_path, plugins, small("elic2022-official"), student)
    assert type(model.codec.module).__name__ == "Cheng2020AnchorCheckerboard"


@pytest.mark.parametrize("suffix", [".safetensors", ".pth.tar"])
@pytest.mark.parametrize("architecture", ["mbt2018-mean", "cheng2020-anchor-checkerboard", "elic2022-chandelier"])
def test_weights_from_a_file_with_sizes_inferred(architecture, suffix, tmp_path):
    torch.manual_seed(0)
    source = pair(teacher=small(architecture)).build_teacher()
    source.update()  # tables in the file have sizes of their own
    path = tmp_path / f"weights{suffix}"
    state = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}  # as data parallelism leaves it
    save_file(state, path) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, path)
    built = pair(teacher={"architecture": architecture, "weights": path})
    assert built.pretrained_teacher
    loaded = built.build_teacher().state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())


def test_a_teacher_from_a_file_needs_no_training(recipe, tmp_path, plugins):
    torch.manual_seed(0)
    torch.save(pair().build_teacher().state_dict(), tmp_path / "teacher.pth")
    options = {"name": "models.compressai", "teacher": {"weights": tmp_path / "teacher.pth", "lmbda": 0.013}}
    distillkit.train(recipe(pair=options, losses=FEDS, num_steps=3), tmp_path / "run", plugins=plugins)
    with pytest.raises(PairError, match=r"trained for lmbda 0.013, this run is for 0.05"):
        distillkit.train(recipe(pair=options, losses=FEDS, lmbda=0.05), tmp_path / "other", plugins=plugins)
    (tmp_path / "teacher.pth").unlink()
    distillkit.load_model(tmp_path / "run", plugins)  # the student is deployed without its teacher


def test_a_teacher_that_went_on_from_a_file_needs_it_no_more(recipe, tmp_path, plugins):
    source = pair(student=small("elic2022-official")).build_student()
    torch.save(source.state_dict(), tmp_path / "teacher.pth")
    teacher = {"architecture": "elic2022-official", "weights": tmp_path / "teacher.pth"}
    options = {"name": "models.compressai", "teacher": teacher}
    further = recipe(pair=options, trains="teacher", num_steps=1, schedule={"name": "core.constant"})
    distillkit.train(further, tmp_path / "run", plugins=plugins)
    (tmp_path / "teacher.pth").unlink()
    model = distillkit.load_model(tmp_path / "run", plugins)
    assert model.codec.module.groups == source.groups


class TestWhatIsWrongIsSaid:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"student": {"architecture": "mbt2018-men"}}, "which it does not know. Did you mean 'mbt2018-mean'"),
            ({"student": {"architecture": "cheng2020-anchor", "M": 5}}, "cheng2020-anchor has as many latent channels"),
            (
                {"student": {"architecture": "cheng2020-attn", "quality": 7}},
                "has qualities 1 to 6, got 7",
            ),
            ({"student": {"architecture": "elic2022-official", "quality": 1}}, "no qualities; give N and M"),
            ({"student": {"architecture": "elic2022-official", "N": 8, "M": 16}}, "expected groups for M = 16"),
            ({"student": {"groups": [3, 4]}}, "expected no groups"),
            ({"teacher": {"pretrained": True}}, "expected a quality, and no N, M or weights"),
            ({"teacher": {"architecture": "elic2022-official", "pretrained": True}}, "no weights of elic2022-official"),
            ({"teacher": {"quality": 4, "weights": "a.pth"}}, "weights: expected no quality beside them"),
            ({"teacher": {"quality": 4, "pretrained": True, "lmbda": 0.1}}, "lmbda: expected none beside pretrained"),
            ({"student": {"architecture": "elic2022-official", "N": 1, "groups": [4]}}, "expected at least 2, got 1"),
            ({"student": {"pretrained": True}}, "unknown key"),
        ],
    )
    def test_options(self, options, message):
        with pytest.raises(RecipeError) as error:
            pair(**options)
        assert message in str(error.value)

    def test_missing_sizes(self):
        with pytest.raises(PairError, match="mbt2018: expected a quality or its sizes, got N = 8, M = None"):
            pair(student={"architecture": "mbt2018", "N": 8}).build_student()

    def test_files(self, tmp_path):
        def load(content, name="weights.pth", **options):
            if content is not None:
                torch.save(content, tmp_path / name)
            return pair(teacher={"weights": tmp_path / name, **options}).build_teacher()

        with pytest.raises(PairError, match="no such file"):
            load(None)
        with pytest.raises(PairError, match="it holds more than weights, and reading that could run code"):
            load({"state_dict": {"a": Image.new("RGB", (1, 1))}})
        with pytest.raises(PairError, match="expected a state dict"):
            load([1, 2])
        for content in ({"a": torch.zeros(1)}, {"state_dict": {"g_a.0.weight": torch.zeros(8, 3, 5, 5)}}):
            with pytest.raises(PairError, match="expected the weights of mbt2018-mean, got others; name their arch"):
                load(content)
        with pytest.raises(PairError, match="expected a state dict"):
            load({1: torch.zeros(1)})
        state = pair().build_teacher().state_dict()
        with pytest.raises(PairError, match="expected N = 5, got 24; correct the recipe"):
            load(state, N=5)
        with pytest.raises(PairError, match=r"weights of mbt2018, got others \(\d+ missing, such as \S+; .*name their"):
            load(state, architecture="mbt2018")
        for name in ("bad.safetensors", "bad.pth", "bad.pth.tar"):
            for content in (b"", b"rubbish that is no file of weights", (tmp_path / "weights.pth").read_bytes()[:9999]):
                (tmp_path / name).write_bytes(content)
                with pytest.raises(PairError, match="got something else or a damaged one"):
                    load(None, name)

    @pytest.mark.slow
    def test_every_architecture_taken_for_every_other(self, tmp_path):
        for held in SMALL:
            torch.save(pair(student=small(held)).build_student().state_dict(), tmp_path / "weights.pth")
            for named in SMALL:
                if named != held:
                    with pytest.raises(PairError, match=f"expected the weights of {named}, got others"):
                        pair(teacher={"architecture": named, "weights": tmp_path / "weights.pth"}).build_teacher()


@pytest.mark.parametrize("quality", [1, 4])
def test_qualities_have_the_zoos_sizes(quality):
    from compressai.zoo import mbt2018_mean

    built = pair(student={"architecture": "mbt2018-mean", "quality": quality}).build_student()
    expected = {name: tensor.shape for name, tensor in mbt2018_mean(quality).state_dict().items()}
    assert {name: tensor.shape for name, tensor in built.state_dict().items()} == expected


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """Torch's cache of downloads, empty, and CompressAI's weights at an address where nothing listens."""
    import compressai.zoo.image

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    urls = compressai.zoo.image.model_urls["bmshj2018-factorized"]["mse"]
    monkeypatch.setitem(urls, 1, "http://127.0.0.1:9/weights-1-0123abcd.pth.tar")
    return tmp_path / "hub" / "checkpoints" / "weights-1-0123abcd.pth.tar"


PRETRAINED = {"architecture": "bmshj2018-factorized", "quality": 1, "pretrained": True}


class TestPretrained:
    def test_from_the_cache(self, cache):
        source = pair(student={"architecture": "bmshj2018-factorized", "quality": 1}).build_student()
        cache.parent.mkdir(parents=True)
        torch.save(source.state_dict(), cache)
        built = pair(teacher=PRETRAINED)
        assert built.pretrained_teacher
        assert built.teacher_lmbda == 0.0018
        loaded = built.build_teacher().state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in source.state_dict().items())

    def test_no_code_in_a_download_is_run(self, cache):
        cache.parent.mkdir(parents=True)
        torch.save({"state_dict": Image.new("RGB", (1, 1))}, cache)
        with pytest.raises(PairError, match="if torch's cache holds a damaged one, remove that"):
            pair(teacher=PRETRAINED).build_teacher()

    def test_no_network(self, cache):
        with pytest.raises(PairError, match=r"quality 1: its weights could not be downloaded .*teacher\.weights"):
            pair(teacher=PRETRAINED).build_teacher()


def registered():
    from compressai.registry import MODELS
    from distillkit_models.compressai_registry import _import_all, _other

    _import_all()
    return {name: _other(model) for name, model in MODELS.items()}


class TestTheWholeRegistry:
    """Whatever the installed CompressAI registers."""

    @pytest.mark.slow
    def test_every_image_codec_is_built_and_comes_back_from_its_weights(self, tmp_path):
        images = [name for name, other in registered().items() if other is None]
        assert set(SMALL) < set(images)
        for name in images:
            sizes = SMALL.get(name, {"N": 8, "M": 16})
            made = pair(student={"architecture": name, **sizes})
            source = as_codec(made.build_student()).module
            torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth.tar")
            loaded = pair(teacher={"architecture": name, "weights": tmp_path / "weights.pth.tar"})
            again = as_codec(loaded.build_teacher()).module
            assert all(torch.equal(value, again.state_dict()[key]) for key, value in source.state_dict().items()), name
            rebuilt = pair(**loaded.options_of("teacher", again)).build_teacher()
            shapes = {key: value.shape for key, value in as_codec(rebuilt).module.named_parameters()}
            assert shapes == {key: value.shape for key, value in source.named_parameters()}, name

    def test_one_that_distillkit_has_no_word_of_trains_and_codes(self, recipe, tmp_path, plugins):
        codec = {"architecture": "bmshj2018-factorized-relu", "N": 8, "M": 16}
        model = distil(recipe, tmp_path, plugins, codec, codec)
        coder = distillkit.ImageCodec(model.codec, model.fingerprint)
        picture = np.zeros((40, 70, 3), np.uint8)
        assert coder.decode(coder.encode(picture)).shape == picture.shape

    def test_sizes_beside_N_and_M_come_from_weights_and_from_options(self, tmp_path, monkeypatch):  # noqa: N802
        """As CompressAI's newer architectures have them."""
        from compressai.models import MeanScaleHyperprior
        from compressai.registry import MODELS

        class Deep(MeanScaleHyperprior):
            def __init__(self, N=8, M=16, depths=(1, 1), **kwargs):
                super().__init__(N, M, **kwargs)
                self.depths = nn.ModuleList(nn.Linear(depth, depth) for depth in depths)

            @classmethod
            def from_state_dict(cls, state):
                depths = [
                    state[name].shape[0] for name in sorted(state) if name.startswith("depths.") and "weight" in name
                ]
                net = cls(state["g_a.0.weight"].shape[0], state["g_a.6.weight"].shape[0], depths)
                net.load_state_dict(state)
                return net

        monkeypatch.setitem(MODELS, "deep2027", Deep)
        sizes = {"architecture": "deep2027", "N": 8, "M": 24, "arguments": {"depths": [3, 5]}}
        source = pair(student=sizes).build_student()
        assert [layer.in_features for layer in source.depths] == [3, 5]
        torch.save(source.state_dict(), tmp_path / "weights.pth")
        loaded = pair(teacher={"architecture": "deep2027", "weights": tmp_path / "weights.pth"})
        options = loaded.options_of("teacher", loaded.build_teacher())["teacher"]
        assert (options["N"], options["M"], list(options["arguments"]["depths"])) == (8, 24, [3, 5])
        for wrong, words in (
            ({"depth": 3}, "expected some of depths, which deep2027 has beside the other options, got depth"),
            ({"depths": "/etc/passwd"}, "arguments.depths"),
        ):
            with pytest.raises(RecipeError) as error:
                pair(student=sizes | {"arguments": wrong})
            assert words in str(error.value)
        with pytest.raises(RecipeError, match="deep2027 has no qualities"):
            pair(student={"architecture": "deep2027", "quality": 3})

    def test_what_codes_no_images_is_refused(self):
        others = {name: other for name, other in registered().items() if other}
        assert {"ssf2020", "sfu2023-pcc-rec-pointnet"} <= set(others)
        for name, other in others.items():
            with pytest.raises(RecipeError, match=f"image codec .* got '{name}', {other}. It has bmshj2018-"):
                pair(student={"architecture": name})


class TestAStudentStartsFromACheckpoint:
    def test_of_compressai_of_its_own_sizes_and_of_larger_ones(self, recipe, tmp_path, plugins):
        own = {"architecture": "mbt2018-mean", "N": 8, "M": 16}
        for number, sizes in enumerate(({}, {"N": 12, "M": 24})):
            source = pair(student=own | sizes).build_student()
            source.update()
            path = tmp_path / f"{number}.pth.tar"
            torch.save({"epoch": 3, "state_dict": source.state_dict()}, path)
            options = {"name": "models.compressai", "student": own}
            run = resolve(recipe(pair=options, initial_weights=path), plugins)
            setup = prepare(run, plugins)
            student = setup.codec.module
            assert any("100% of the parameters are taken over" in note for note in setup.notes), setup.notes
            if not sizes:
                assert torch.equal(student.g_a[0].weight, source.g_a[0].weight)
            else:
                rows = {tuple(row.flatten().tolist()) for row in source.g_s[-1].weight}
                assert {tuple(row.flatten().tolist()) for row in student.g_s[-1].weight} <= rows
        distillkit.train(run, tmp_path / "run", plugins=plugins)

    def test_of_the_pairs_own_codec(self, recipe, tmp_path, plugins):
        """A codec that CompressAI has not: the pair builds it, the file fills it."""
        plain = recipe()
        pair_class, config = plugins.configure("pair", "small.pair", {}, "test")
        built = pair_class(config)
        source = as_codec(built.build_student()).module
        torch.save(
            {"model": {f"module.{key}": value for key, value in source.state_dict().items()}}, tmp_path / "a.pth"
        )
        setup = prepare(resolve(recipe(initial_weights=tmp_path / "a.pth"), plugins), plugins)
        mine = setup.codec.module.state_dict()
        assert all(torch.equal(mine[key], value) for key, value in source.state_dict().items() if value.numel())
        torch.save({"other": torch.zeros(3)}, tmp_path / "b.pth")
        with pytest.raises(PairError, match=r"weights .*b.pth: expected those of .* got others \(\d+ missing, such as"):
            prepare(resolve(plain.model_copy(update={"initial_weights": tmp_path / "b.pth"}), plugins), plugins)
        with pytest.raises(CheckpointError, match="no such file"):
            prepare(resolve(plain.model_copy(update={"initial_weights": tmp_path / "c.pth"}), plugins), plugins)
