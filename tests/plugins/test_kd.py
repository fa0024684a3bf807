"""The losses `kd.*`: values worked out by hand, and real training with each."""

from __future__ import annotations

import math

import pytest
import torch

import distillkit
from distillkit.model.adapters import CodecOutput
from distillkit.taps.bank import TapShape, TapShapes
from distillkit.taps.pair import TapPair
from distillkit.training.losses import Step

COMPONENTS = distillkit.load_plugins().components["loss"]
NAMES = sorted(name for name in COMPONENTS if name.startswith("kd."))
ROLES = ["analysis.1/8", "latent", "hyper_latent", "entropy_parameters", "reconstruction", "synthesis.1/8"]


def term(name, channels=(1, 1), **options):
    sides = [{role: TapShape(count, 2, 2) for role in ROLES} for count in channels]
    sides[0]["latent"] = sides[1]["latent"] = TapShape(1, 2, 2)
    cls = COMPONENTS[name]
    return cls(cls.Config(**options), TapShapes(*sides))


def value(built, student, teacher):
    """The loss of one tap, given as nested lists of shape (B, C, H, W)."""
    if built.needs_teacher_output:
        outputs = [CodecOutput(torch.tensor(side, dtype=torch.float32), {}) for side in (student, teacher)]
        return float(built(Step(torch.zeros(1), outputs[0], {}, teacher_output=outputs[1])))
    (role,) = built.required_taps()
    pair = TapPair(torch.tensor(student, dtype=torch.float32), torch.tensor(teacher, dtype=torch.float32))
    return built(Step(torch.zeros(len(student), 3, 2, 2), None, {role: pair})).item()


class TestByHand:
    @pytest.mark.parametrize(
        ("name", "expected"), [("kd.output", 2.5), ("kd.latent", 2.5), ("kd.hyper_latent", 2.5), ("kd.hint", 1.25)]
    )
    def test_squared_differences(self, name, expected):
        # differences 1, 0, 0, 3: (1 + 9) / 4
        assert value(term(name), [[[[1, 2], [3, 4]]]], [[[[0, 2], [3, 7]]]]) == pytest.approx(expected)

    def test_gaussian_kl(self):
        # scales 2 and 1, means 1 and 0: ln 2 + (1 + 1) / (2 * 4) - 1/2; the other three elements are equal
        student = [[[[2, 1], [1, 1]], [[1, 0], [0, 0]]]]
        teacher = [[[[1, 1], [1, 1]], [[0, 0], [0, 0]]]]
        expected = (math.log(2) + 0.25 - 0.5) / 4
        assert value(term("kd.gaussian_kl", (2, 2)), student, teacher) == pytest.approx(expected)

    def test_gaussian_kl_bounds_scales(self):
        # 0.01 counts as 0.11 on both sides
        student, teacher = [[[[0.01] * 2] * 2, [[0] * 2] * 2]], [[[[0.11] * 2] * 2, [[0] * 2] * 2]]
        assert value(term("kd.gaussian_kl", (2, 2)), student, teacher) == pytest.approx(0, abs=1e-7)

    def test_gaussian_kl_below_the_bound_has_the_gradient_that_raises_the_scale(self):
        # at 0.11: dL/ds = (1/s - 2^2/s^3) / 4 elements of one channel where the teacher's scale is 2, and 0 where the
        # loss would lower the scale further
        student = torch.tensor([[[[0.01, 0.01], [2, 2]], [[0, 0], [0, 0]]]], requires_grad=True)
        teacher = torch.tensor([[[[2, 0.01], [2, 2]], [[0, 0], [0, 0]]]], dtype=torch.float32)
        taps = {"entropy_parameters": TapPair(student, teacher)}
        term("kd.gaussian_kl", (2, 2))(Step(torch.zeros(1, 3, 2, 2), None, taps)).backward()
        expected = (1 / 0.11 - 4 / 0.11**3) / 4
        assert student.grad[0, 0].flatten().tolist() == pytest.approx([expected, 0, 0, 0])

    def test_gaussian_kl_of_groups_of_channels(self):
        # the student codes channels 0 | 1 2, each group as scales and then means; the teacher all at once
        groups = TapShapes(*[{"entropy_parameters": TapShape(6, 1, 1)}] * 2, {"entropy_parameters": (2, 4)})
        student = [1, 10, 2, 3, 20, 30]
        teacher = [1, 2, 3, 10, 20, 31]
        cls = COMPONENTS["kd.gaussian_kl"]
        found = value(cls(cls.Config(), groups), *([[[[x]] for x in side]] for side in (student, teacher)))
        assert found == pytest.approx(1 / (2 * 3**2) / 3)  # the means of channel 2 alone differ

    def test_gaussian_kl_of_codecs_without_means(self):
        # ln 2 + 1 / 8 - 1/2 at each element
        expected = math.log(2) + 0.125 - 0.5
        assert value(term("kd.gaussian_kl"), [[[[2, 2], [2, 2]]]], [[[[1, 1], [1, 1]]]]) == pytest.approx(expected)

    def test_attention_transfer(self):
        # Q: student (9, 0, 0, 16) / sqrt(81 + 256), teacher (1, 0, 0, 0): distance^2 = 2 - 2 * 9 / sqrt(337)
        student, teacher = [[[[3, 0], [0, 4]]]], [[[[-1, 0], [0, 0]]]]
        built = term("kd.attention_transfer", taps=["latent"])
        assert value(built, student, teacher) == pytest.approx(2 - 18 / math.sqrt(337))
        assert value(built, student, [[[[6, 0], [0, -8]]]]) == pytest.approx(0, abs=1e-6)  # proportional, signs ignored

    def test_channel_wise(self):
        # T = 1; the teacher attends evenly to four places, the student with odds 1 : 1 : 1 : 3
        built = term("kd.channel_wise", taps=["latent"], temperature=1.0)
        student = [[[[0, 0], [0, math.log(3)]]]]
        expected = 0.25 * (3 * math.log(0.25 / (1 / 6)) + math.log(0.25 / 0.5))
        assert value(built, student, [[[[5, 5], [5, 5]]]]) == pytest.approx(expected)

    def test_channel_wise_has_the_square_of_its_temperature(self):
        student, teacher = [[[[0, 0], [0, 2 * math.log(3)]]]], [[[[5, 5], [5, 5]]]]
        one = value(term("kd.channel_wise", taps=["latent"], temperature=1.0), [[[[0, 0], [0, math.log(3)]]]], teacher)
        two = value(term("kd.channel_wise", taps=["latent"], temperature=2.0), student, teacher)
        assert two == pytest.approx(4 * one)

    def test_masked_generative(self):
        # a generator that passes positive features on: 3x3 kernels with 1 in the middle
        built = term("kd.masked_generative", taps=["latent"], masked=0.0)
        with torch.no_grad():
            for parameter in built.generators.parameters():
                parameter.zero_()
            for layer in (built.generators[0][0], built.generators[0][2]):
                layer.weight[0, 0, 1, 1] = 1
        assert value(built, [[[[1, 2], [3, 4]]]], [[[[0, 2], [3, 7]]]]) == pytest.approx(2.5)
        most = term("kd.masked_generative", taps=["latent"], masked=0.999)
        most.load_state_dict(built.state_dict())
        torch.manual_seed(0)
        assert value(most, [[[[1, 2], [3, 4]]]], [[[[0, 2], [3, 7]]]]) == pytest.approx((4 + 9 + 49) / 4)

    def test_relational_distances(self):
        # points 0, 1, 3 and 0, 1, 2 on a line. Distances over their mean: (1, 2, 3) / 2 and (1, 1, 2) / (4/3).
        points = [[[[[float(x)] * 2] * 2] for x in side] for side in ((0, 1, 3), (0, 1, 2))]
        differences = [0.5 - 0.75, 1.0 - 0.75, 1.5 - 1.5]
        expected = sum(0.5 * d * d for d in differences) * 2 / 9  # each pair twice among 9 entries, Huber's inner part
        built = term("kd.relational", distance=1.0, angle=0.0)
        assert value(built, *points) == pytest.approx(expected)

    def test_relational_angles(self):
        # a right angle at the origin against one of 180 degrees
        def points(*places):
            return torch.tensor(places, dtype=torch.float32)[:, :, None, None].expand(-1, -1, 2, 2).tolist()

        built = term("kd.relational", (2, 2), distance=0.0, angle=1.0)
        student, teacher = points((0, 0), (1, 0), (0, 1)), points((0, 0), (1, 0), (-1, 0))
        # cosines at the three points towards the two others: student 0, 1/sqrt 2, 1/sqrt 2; teacher -1, 1, 1
        differences = [1.0, 1 - 1 / math.sqrt(2), 1 - 1 / math.sqrt(2)]
        expected = sum(0.5 * d * d for d in differences) * 2 / 27  # each angle twice among 27 entries
        assert value(built, student, teacher) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_constant_features_and_half_precision_stay_finite(name):
    built = term(name, (2, 2))
    taps = {role: TapPair(torch.zeros(3, 2, 2, 2, requires_grad=True), torch.zeros(3, 2, 2, 2)) for role in ROLES}
    taps["latent"] = TapPair(torch.zeros(3, 1, 2, 2, requires_grad=True), torch.zeros(3, 1, 2, 2))
    output = CodecOutput(torch.zeros(3, 3, 2, 2, requires_grad=True), {})
    with torch.autocast("cpu", torch.bfloat16):
        loss = built(Step(torch.zeros(3, 3, 2, 2), output, taps, teacher_output=output))
    assert loss.isfinite()
    assert loss.dtype == torch.float32
    loss.backward()
    for role in built.required_taps():
        assert taps[role].student.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "kd.masked_generative"])
def test_equal_features_give_nothing(name):
    torch.manual_seed(0)
    built = term(name, (2, 2))
    taps = {}
    for role in ROLES:
        features = torch.rand(3, 1 if role == "latent" else 2, 2, 2) + 0.2
        taps[role] = TapPair(features, features.clone())
    output = CodecOutput(torch.rand(3, 3, 2, 2), {})
    step = Step(torch.zeros(3, 3, 2, 2), output, taps, teacher_output=output)
    assert built(step).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("kd.gaussian_kl",)])
def test_it_trains_with_other_widths(name, recipe, teacher_file, tmp_path, plugins):
    run(name, recipe, teacher_file, tmp_path, plugins)


def run(name, recipe, teacher_file, folder, plugins):
    data = {"train": recipe().data.train, "crop": 64, "batch_size": 3}
    common = {"data": data, "num_steps": 3, "log_every": 1, "schedule": {"name": "core.constant"}}
    one = recipe(losses={name: {}}, teacher=teacher_file, **common)
    seen = []

    class Listen:
        @distillkit.hookimpl
        def metrics_logged(self, metrics):
            seen.append(metrics[f"loss/{name}"])

    distillkit.train(one, folder / "run", plugins=plugins, observers=[Listen()])
    assert len(seen) == 3
    assert all(math.isfinite(loss) for loss in seen)
    assert max(seen) > 0


def test_gaussian_kl_trains_where_latents_are_of_one_width(recipe, teacher_file, tmp_path, plugins):
    run("kd.gaussian_kl", recipe, teacher_file, tmp_path, plugins)


def test_from_a_file_with_weights_of_ones_own(tmp_path, photographs, teacher_file, plugins):
    """PRIM's mix."""
    file = tmp_path / "prim.toml"
    file.write_text(f"""
num_steps = 2
pair = {{name = "small.pair"}}
teacher = "{teacher_file}"
data = {{train = "{photographs}", crop = 64, batch_size = 2}}
device = "cpu"
[losses."kd.output"]
[losses."kd.latent"]
[losses."kd.hyper_latent"]
[schedule]
name = "core.constant"
weights = {{"kd.latent" = 0.2, "kd.hyper_latent" = 0.2, "kd.output" = 0.6}}
""")
    distillkit.train(distillkit.Recipe.load(file), tmp_path / "run", plugins=plugins)


def test_what_cannot_be_compared_is_said():
    with pytest.raises(ValueError, match="expected one width, got 4 channels in the student and 2 in the teacher"):
        term("kd.gaussian_kl", (4, 2))
    latents = [{"entropy_parameters": TapShape(4, 2, 2), "latent": TapShape(count, 2, 2)} for count in (4, 2)]
    cls = COMPONENTS["kd.gaussian_kl"]
    with pytest.raises(ValueError, match="4 channels that are only scales in the student"):
        cls(cls.Config(), TapShapes(*latents))
    two = Step(torch.zeros(2, 3, 2, 2), None, {"latent": TapPair(torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2))})
    with pytest.raises(distillkit.DistillkitError, match="batches of three images or more, got 2; raise"):
        term("kd.relational")(two)
    with pytest.raises(ValueError, match="no tap matches 'latnt'.*Did you mean 'latent'"):
        term("kd.hint", tap="latnt")
