"""A checkpoint brings back exactly what was saved, or says that it cannot."""

from __future__ import annotations

import math
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from pytorch_optimizer import SOAP
from safetensors.torch import save_file
from torch import Tensor, nn

from distillkit.errors import CheckpointError, TrainingError
from distillkit.model.tensors import read_tensors, write_tensors
from distillkit.recipe.recipe import Recipe
from distillkit.training.folder.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from distillkit.training.folder.run_folder import RunFolder
from distillkit.training.pace.muon import Muon
from distillkit.training.setup.resolve import resolve


def same(a: object, b: object) -> bool:
    """Whether two states are equal to the bit, types included."""
    if isinstance(a, Tensor):
        return (
            isinstance(b, Tensor)
            and (a.dtype, a.shape) == (b.dtype, b.shape)
            and (a.stride() == b.stride() or 0 in (*b.stride(), b.numel()))  # expanded, or empty
            and bits(a).equal(bits(b))
        )
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        assert isinstance(b, dict)
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))


def bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize(
    "state",
    [
        {"step": 3, 0: {1: "one", -2: []}, "none": None, "flags": [True, False], "text": "häuser\n\0"},
        {
            "tuples": ((), (1, 2.5), [(3,)]),
            "lists": [[], [[]], [None]],
            "dicts": {"a": {}, "b": {"dict": {"tensor": 1}}},
        },
        {"floats": [0.1, 1e-310, -0.0, math.inf, -math.inf, math.nan], "large": 2**80},
        {
            "empty": torch.zeros(0),
            "empty too": torch.zeros(2, 0, 3, dtype=torch.bfloat16),
            "scalar": torch.tensor(1.5),
            "bool": torch.tensor([True, False, True]),
            "bf16": torch.randn(3, 5).bfloat16(),
            "f16": torch.randn(3, 5).half(),
            "f64": torch.randn(2, dtype=torch.float64),
            "ints": [
                torch.arange(4, dtype=t) for t in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
            ],
            "not finite": torch.tensor([math.nan, math.inf, -0.0]),
        },
        {
            "transposed": torch.arange(6.0).reshape(2, 3).T,
            "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
            "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
            "parameter": nn.Parameter(torch.randn(3)).detach(),
            "part": torch.arange(10)[3:7],
        },
        {},
    ],
)
def test_round_trip(tmp_path, state):
    assert same(load_checkpoint(save_checkpoint(tmp_path, 7, state)), state)


def test_shared_tensors_are_both_there(tmp_path):
    tensor = torch.arange(4.0)
    state = load_checkpoint(save_checkpoint(tmp_path, 1, {"a": tensor, "b": tensor, "view": tensor[1:3]}))
    assert same(state, {"a": tensor, "b": tensor, "view": tensor[1:3]})
    state["a"].zero_()
    assert state["b"].equal(tensor)


def test_saving_leaves_the_state_alone(tmp_path):
    parameter = nn.Parameter(torch.randn(3))
    state = {"p": parameter, "inner": {"list": [parameter]}}
    save_checkpoint(tmp_path, 1, state)
    assert state["p"] is parameter
    assert state["inner"]["list"][0] is parameter


def test_memory_is_aligned_as_torch_does(tmp_path):
    """BLAS rounds by the alignment of its factors: a resumed SOAP would part from an uninterrupted one."""
    state = load_checkpoint(save_checkpoint(tmp_path, 1, {str(n): torch.ones(n) for n in range(1, 20)}))
    assert all(tensor.data_ptr() % 64 == torch.ones(5).data_ptr() % 64 for tensor in state.values())


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 4, 1), nn.Flatten(), nn.Linear(64, 5))


OPTIMIZERS = {
    "adam": lambda parameters: torch.optim.Adam(parameters, 1e-3),
    "soap": lambda parameters: SOAP(
        parameters, lr=3e-3, betas=(0.95, 0.95), weight_decay=0.0, precondition_frequency=3
    ),
    "muon": lambda parameters: Muon(parameters, 3e-3),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("steps_before", [0, 1, 5])
def test_optimizer_goes_on_bit_for_bit(tmp_path, name, steps_before):
    def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            loss = net(torch.randn(2, 3, 4, 4, generator=generator)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.param_groups[0]["lr"] = 1e-3 * (step + 1)
            optimizer.step()

    net = network()
    optimizer = OPTIMIZERS[name](net.parameters())
    train(net, optimizer, range(steps_before))
    path = save_checkpoint(tmp_path, steps_before, {"net": net.state_dict(), "optimizer": optimizer.state_dict()})
    saved = optimizer.state_dict()
    other = network()
    resumed = OPTIMIZERS[name](other.parameters())
    state = load_checkpoint(path)
    assert same(dict(state["optimizer"]), dict(saved))
    other.load_state_dict(state["net"])
    resumed.load_state_dict(state["optimizer"])
    train(net, optimizer, range(steps_before, steps_before + 7))
    train(other, resumed, range(steps_before, steps_before + 7))
    assert all(same(a.data, b.data) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    assert same(dict(optimizer.state_dict()), dict(resumed.state_dict()))


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    return save_checkpoint(tmp_path, 5, {"weights": torch.arange(8.0), "flags": torch.tensor([True]), 1: (0.5, None)})


def test_every_truncation_is_noticed(checkpoint):
    data = checkpoint.read_bytes()
    for length in range(len(data)):
        checkpoint.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="step-00000005"):
            load_checkpoint(checkpoint)
    checkpoint.write_bytes(data + b"\0")
    with pytest.raises(CheckpointError):
        load_checkpoint(checkpoint)


def test_every_flipped_bit_is_noticed(checkpoint):
    data = checkpoint.read_bytes()
    for place in range(len(data)):
        for bit in range(8) if place < 8 else (0, 5, place % 8):  # 5 turns small letters into capitals
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            checkpoint.write_bytes(damaged)
            with pytest.raises(CheckpointError, match="step-00000005"):
                load_checkpoint(checkpoint)


def test_checkpoint_of_zeros(checkpoint):
    checkpoint.write_bytes(bytes(len(checkpoint.read_bytes())))
    with pytest.raises(CheckpointError):
        load_checkpoint(checkpoint)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "distillkit-checkpoint-1", "state": "1"}])
def test_foreign_safetensors(tmp_path, metadata):
    save_file({"weight": torch.ones(3)}, tmp_path / "step-00000001.safetensors", metadata)
    with pytest.raises(CheckpointError, match=r"step-00000001.safetensors: .*checksum"):
        load_checkpoint(tmp_path / "step-00000001.safetensors")


def test_file_of_another_kind(tmp_path):
    write_tensors(tmp_path / "model.safetensors", {"weight": torch.ones(3)}, {"format": "distillkit-model-1"})
    with pytest.raises(CheckpointError, match="expected a checkpoint, got format 'distillkit-model-1'"):
        load_checkpoint(tmp_path / "model.safetensors")


def test_missing_file_and_folder(tmp_path):
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_tensors(path)


def test_only_the_two_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 100_000_000):  # more digits than the name's eight sort last all the same
        save_checkpoint(tmp_path, step, {"step": step})
    assert [load_checkpoint(path)["step"] for path in list_checkpoints(tmp_path)] == [15, 100_000_000]
    assert not list(tmp_path.glob("*.partial"))


def test_overwriting_a_checkpoint(tmp_path):
    for value in (1, 2):
        save_checkpoint(tmp_path, 5, {"value": value})
    (path,) = list_checkpoints(tmp_path)
    assert load_checkpoint(path) == {"value": 2}


@contextmanager
def full_disk(num_bytes: int):
    """Let no file of this process grow beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk_keeps_the_earlier_file(tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, {"weight": torch.ones(3)}, {})
    before = path.read_bytes()
    with full_disk(4096), pytest.raises(CheckpointError, match=r"cannot be written: .*before is kept"):
        write_tensors(path, {"weight": torch.ones(3000)}, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_full_disk_keeps_the_earlier_checkpoints(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, {"step": step})
    with full_disk(4096), pytest.raises(CheckpointError):
        save_checkpoint(tmp_path, 3, {"step": 3, "weight": torch.ones(3000)})
    assert [load_checkpoint(path)["step"] for path in list_checkpoints(tmp_path)] == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_target_that_is_a_folder(tmp_path):
    path = tmp_path / "model.safetensors"
    (path / "inside").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_tensors(path, {"weight": torch.ones(3)}, {})
    assert list(tmp_path.iterdir()) == [path]
    assert (path / "inside").is_dir()


def test_parent_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(CheckpointError, match="cannot be written"):
        write_tensors(tmp_path / "file" / "model.safetensors", {"weight": torch.ones(3)}, {})
    for folder in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        with pytest.raises(CheckpointError, match="cannot be written"):
            save_checkpoint(folder, 1, {"step": 1})
    assert (tmp_path / "file").read_text() == "precious"


def test_left_over_partial_file_does_no_harm(tmp_path):
    (tmp_path / "step-00000001.safetensors.partial").write_bytes(b"half")
    assert list_checkpoints(tmp_path) == []
    save_checkpoint(tmp_path, 1, {"step": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]


def test_what_it_cannot_hold_is_said(tmp_path):
    with pytest.raises(TypeError, match="cannot hold a set"):
        save_checkpoint(tmp_path, 1, {"a": {1, 2}})


class TestRunFolder:
    def test_damaged_newest_falls_back(self, tmp_path):
        run = RunFolder(tmp_path)
        for step in (1, 2):
            path = save_checkpoint(run.checkpoints, step, {"step": step})
        path.write_bytes(path.read_bytes()[:-1])
        state, notes = run.newest_state()
        assert state == {"step": 1}
        assert len(notes) == 1
        assert "step-00000002" in notes[0]

    def test_all_damaged(self, tmp_path):
        run = RunFolder(tmp_path)
        save_checkpoint(run.checkpoints, 1, {"step": 1}).write_bytes(b"")
        with pytest.raises(CheckpointError, match="every checkpoint is damaged"):
            run.newest_state()

    def test_none_yet(self, tmp_path):
        assert RunFolder(tmp_path).newest_state() == (None, [])

    @staticmethod
    def recipe(**more) -> Recipe:
        return Recipe.create(**{"pair": {"name": "p.q"}, "num_steps": 5, "data": {"train": "/x"}, **more})

    def test_same_recipe_and_free_keys(self, tmp_path):
        run = RunFolder(tmp_path / "run")
        run.open(self.recipe())
        run.open(self.recipe())
        run.open(self.recipe(log_every=7, data={"train": "/x", "num_workers": 3}))
        assert Recipe.load(run.recipe_file).log_every == 7

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"seed": 1}, "seed: 0 there, 1 now"),
            ({"data": {"train": "/y"}}, "data.train: /x there, /y now"),
            ({"teacher": "/t"}, "teacher: None there, /t now"),
            ({"losses": {"plain.loss": {}}}, "losses"),
            ({"schedule": {"name": "core.constant", "balance": 0.5}}, "schedule.balance: None there, 0.5 now"),
        ],
    )
    def test_another_recipe(self, tmp_path, more, said):
        run = RunFolder(tmp_path)
        run.open(self.recipe())
        save_checkpoint(run.checkpoints, 1, {"step": 1})
        with pytest.raises(TrainingError, match="run of another recipe") as caught:
            run.open(self.recipe(**more))
        assert said in str(caught.value)
        assert Recipe.load(run.recipe_file) == self.recipe()

    def test_run_that_never_began_may_be_mended(self, tmp_path):
        run = RunFolder(tmp_path)
        run.open(self.recipe(data={"train": "/misspelt"}))
        run.open(self.recipe())
        assert Recipe.load(run.recipe_file) == self.recipe()
        run.calibration("plain.one").parent.mkdir()
        run.calibration("plain.one").write_text("{}")
        with pytest.raises(TrainingError, match=r"data\.train"):
            run.open(self.recipe(data={"train": "/other"}))

    def test_one_more_loss_without_options(self, tmp_path):
        run = RunFolder(tmp_path)
        run.open(self.recipe(losses={"plain.one": {}}))
        run.model.write_bytes(b"")
        with pytest.raises(TrainingError, match=r"losses\.plain\.two"):
            run.open(self.recipe(losses={"plain.one": {}, "plain.two": {}}))
        run.open(self.recipe(losses={"plain.one": {}}))

    def test_an_option_that_came_since_has_its_default(self, tmp_path, plugins):
        def staged(**options):
            schedule = {"name": "feds.staged", **options}
            return resolve(self.recipe(pair={"name": "small.pair"}, schedule=schedule), plugins)

        run = RunFolder(tmp_path)
        run.open(staged(), plugins)
        older = run.recipe_file.read_text().replace("\nevery = 1\n", "\n")
        assert "\nevery = " not in older
        run.recipe_file.write_text(older)
        run.model.write_bytes(b"")
        with pytest.raises(TrainingError, match=r"schedule\.every: 1 there, 2 now"):
            run.open(staged(every=2), plugins)
        with pytest.raises(TrainingError, match=r"schedule\.every: None there, 1 now"):
            run.open(staged())
        run.open(staged(), plugins)
        assert "\nevery = 1\n" in run.recipe_file.read_text()

    def test_folder_of_something_else(self, tmp_path):
        (tmp_path / "thesis.tex").write_text("precious")
        with pytest.raises(TrainingError, match="it holds other files"):
            RunFolder(tmp_path).open(self.recipe())
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_file_in_place_of_a_folder(self, tmp_path):
        (tmp_path / "file").write_text("precious")
        for path in (tmp_path / "file", tmp_path / "file" / "run"):
            with pytest.raises(TrainingError, match="run folder"):
                RunFolder(path).open(self.recipe())
        assert (tmp_path / "file").read_text() == "precious"
