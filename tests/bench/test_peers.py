"""The side by side: counted lines, costs read off what the peers made, nobody called home, nothing imported that was not asked for."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from geta_nb.bench import digits, peers, peers_table
from geta_nb.bench.peers import PEERS, Given, Made, Row, in_torch, latency, optional, price, run_peer, user_lines
from geta_nb.bench.peers_official import checkout_on_path
from geta_nb.errors import InputError


def four_lines(x: int) -> int:
    """Not counted.

    Nor this.
    """
    # nor this
    y = max(
        x, 1
    )

    return y + x


def test_lines_are_counted_without_words_about_them():
    assert user_lines(four_lines) == 4


def test_a_price_counts_what_is_left_and_its_bits():
    dense = digits.digits_net()
    assert price(dense, dense) == 1
    assert price(dense, dense, [(8.0, 8.0)] * 8) == 1 / 16
    narrow = digits.digits_net(0.5)
    macs = [110592, 589824, 294912, 589824, 294912, 589824, 8192, 1280]
    by_hand = [macs[0] / 2, *(m / 4 for m in macs[1:6]), macs[6] / 4, macs[7] / 2]
    assert price(narrow, dense) == pytest.approx(sum(by_hand) / sum(macs), rel=1e-12)
    with pytest.raises(InputError, match="bits of another network"):
        price(dense, dense, [(8.0, 8.0)])


def test_latency_is_the_median_after_warming_up(monkeypatch):
    now, seconds = [0.0], [9.0, 9.0, 9.0, 0.5, 0.125, 4.0, 0.25, 2.0]
    monkeypatch.setattr(peers, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def predict(images: object) -> None:
        now[0] += seconds.pop(0)

    assert latency(predict, torch.zeros(1), repeats=5) == 500
    assert seconds == []


@pytest.fixture(scope="module")
def data() -> digits.Digits:
    return digits.load_digits()


def given(tmp_path: Path, data: digits.Digits, relative_bops: float = 0.3) -> Given:
    torch.manual_seed(0)
    train = peers_table.trainer(data, 1, 0)
    return Given(digits.digits_net(0.5), train, data.train_images, data.steps_per_epoch, relative_bops, tmp_path / "peer", quick=True)


def test_a_peer_that_fails_says_so_and_the_others_run(tmp_path, data, monkeypatch):
    import geta_nb.bench.peers_torch_pruning as peer

    def broken(given: Given) -> None:
        raise ValueError("no such thing\nin two lines")

    monkeypatch.setattr(peer, "user_code", broken)
    row = run_peer("torch_pruning", given(tmp_path, data), data)
    assert (row.accuracy, row.note) == (None, "ValueError: no such thing")


def test_training_seconds_are_not_analysis(tmp_path, data, monkeypatch):
    """By a clock that only moves when somebody works."""
    import geta_nb.bench.peers_torch_pruning as peer

    now = [0.0]

    def works(seconds: float) -> None:
        now[0] += seconds

    def slow(given: Given) -> nn.Module:
        given.train(given.model)
        works(0.25)
        return given.model

    monkeypatch.setattr(peers, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(peer, "user_code", slow)
    monkeypatch.setattr(peer, "describe", lambda product, given, dense: Made(in_torch(product), 0.5, [], "torch"))
    base = given(tmp_path, data)
    row = run_peer("torch_pruning", Given(**{**vars(base), "train": lambda model: works(0.5)}), data)
    assert row.analysis_seconds == 0.25
    assert row.note == "over the budget: the least it can do"
    assert row.file_bytes is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["geta", "torch_pruning"])
def test_peers_that_prune_meet_the_budget_and_leave_a_file(name, tmp_path, data):
    row = run_peer(name, given(tmp_path, data), data)
    assert row.note == ""
    assert 0 < row.relative_bops <= 0.3
    assert row.file_bytes > 1000
    assert 3 <= row.user_lines <= 25


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torchao", "nncf", "openvino"])
def test_peers_that_quantize_are_at_eight_bits_by_their_own_graph(name, tmp_path, data):
    """In a process of its own, for they change torch's and their own global state, and warn."""
    if importlib.util.find_spec(name) is None and not (peers.BESIDE / name).is_dir():
        pytest.skip(f"{name} is not installed")
    script = (
        "import json, sys, torch; torch.set_num_threads(1); from pathlib import Path; from geta_nb.bench import digits, peers_table;"
        "from geta_nb.bench.peers import Given, run_peer; data = digits.load_digits(); torch.manual_seed(0);"
        "train = peers_table.trainer(data, 3, 0);"
        f"given = Given(digits.digits_net(0.5), train, data.train_images, 69, 0.3, Path({str(tmp_path)!r}) / 'p', True);"
        f"row = run_peer({name!r}, given, data).to_dict(); sys.stdout.write('ROW' + json.dumps(row))"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, timeout=500, check=True)
    row = json.loads(ran.stdout.partition("ROW")[2])
    assert row["note"] == "", ran.stderr[-2000:]
    assert row["relative_bops"] == pytest.approx(1 / 16)
    assert row["accuracy"] > 0.3  # three epochs from scratch; chance is 0.1


def test_a_peer_is_imported_without_a_word_and_torchao_from_beside_the_environment(tmp_path, monkeypatch, caplog):
    (tmp_path / "torchao").mkdir()
    (tmp_path / "torchao" / "__init__.py").write_text("import logging\nlogging.getLogger('torchao').warning('Failed to load')\n")
    monkeypatch.setattr(peers, "BESIDE", tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if not Path(entry, "torchao").is_dir()])
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchao"]:
        monkeypatch.delitem(sys.modules, name)
    assert optional("torchao").__file__ == str(tmp_path / "torchao" / "__init__.py")
    assert sys.path[-1] == str(tmp_path)
    assert caplog.records == []
    logging.getLogger("torchao").warning("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]
    del sys.modules["torchao"]  # for good: what the test put there must not come back with what it took away
    try:
        with pytest.raises(InputError, match=r"pip install 'geta-nb\[torchao\]'"):
            optional("torchao.not_there")
    finally:
        sys.modules.pop("torchao", None)


@pytest.mark.slow
def test_nobody_calls_home(tmp_path):
    """nncf's and OpenVINO's telemetry is a stub in the very process that a notebook would be, where pytest does not hide it."""
    pytest.importorskip("nncf")
    script = (
        "import socket; socket.socket.connect = lambda *a: (_ for _ in ()).throw(AssertionError('asked the network'));"
        "from geta_nb.bench.peers import optional; optional('nncf'); optional('openvino');"
        "from nncf.telemetry.wrapper import telemetry; assert type(telemetry).__name__ == 'MagicMock', type(telemetry)"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "NNCF"))}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, env=env, timeout=300, cwd=Path(__file__).parents[2])


def test_the_authors_code_is_imported_from_the_checkout_and_only_when_there_is_one(tmp_path, data):
    with pytest.raises(InputError, match="not a clone of the authors' code"), checkout_on_path(tmp_path):
        pass
    quantization = tmp_path / "only_train_once" / "quantization"
    quantization.mkdir(parents=True)
    (quantization / "__init__.py").write_text("")
    (quantization / "quant_model.py").write_text("def model_to_quantize_model(model):\n    return model\n")
    (tmp_path / "only_train_once" / "__init__.py").write_text(
        "import torch\n"
        "class OTO:\n"
        "    def __init__(self, model, dummy_input):\n"
        "        self.model = model\n"
        "    def geta(self, **options):\n"
        "        assert options['target_group_sparsity'] == 0.5\n"
        "        return torch.optim.SGD(self.model.parameters(), lr=0.0)\n"
        "    def construct_subnet(self, out_dir):\n"
        "        self.compressed_model_path = out_dir + '/small.pt'\n"
        "        torch.save(self.model, self.compressed_model_path)\n"
    )
    path = list(sys.path)
    torch.manual_seed(0)
    rows = peers_table.compare(
        digits.digits_net(0.5), data, [], folder=tmp_path, epochs=1, relative_bops=0.3, official_checkout=str(tmp_path)
    )
    for name in [name for name in sys.modules if name.startswith("only_train_once")]:
        del sys.modules[name]
    assert [row.name for row in rows] == ["dense fp32", "official"]
    assert rows[1].relative_bops == 1, rows[1].note
    assert rows[1].note == "over the budget: the least it can do"
    assert sys.path == path


def test_the_table_shows_every_figure_and_leaves_out_what_there_is_not():
    figures = {"accuracy": 0.987, "relative_bops": 0.0312, "file_bytes": 12345, "latency_ms": 1.234, "runtime": "torch"}
    row = Row("geta", **figures, analysis_seconds=2.5, user_lines=8)
    failed = Row("nncf", note="ImportError: <b>")
    text = peers_table.markdown([row, failed])
    assert f"| {PEERS['geta']} | 98.7 % | 3.12 % | 12.3 kB | 1.23 ms (torch) | 2.5 s | 8 |  |" in text
    assert f"| {PEERS['nncf']} |  |  |  |  |  |  | ImportError: <b> |" in text
    assert "<b>" not in peers_table.html([failed])


def test_bits_are_read_off_an_exported_graph():
    from geta_nb.bench.peers_torchao import operand_bits

    exported = torch.export.export(copy.deepcopy(digits.digits_net(0.1)).eval(), (torch.zeros(2, *digits.IMAGE),)).module()
    assert operand_bits(exported) == [(32.0, 32.0)] * 8
    assert math.log2(127 - -128 + 1) == 8
