"""What each view says: its numbers are those of the object."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from geta_nb.budget import Budget, LayerBudget
from geta_nb.display import config, cost, groups, optimizer, qadg, quantizers, report, subnet, trace
from geta_nb.display.page import standalone_page
from geta_nb.display.training import rows_by_module, training_picture
from geta_nb.qasso.schedule import Schedule
from geta_nb.subnet import WeightFormat
from tests.display import dummies
from tests.display.checks import check_inert, check_svg, parse, svg_texts, svg_titles

VGG = dummies.vgg7()
RECT = "{http://www.w3.org/2000/svg}rect"


def test_the_timeline_has_a_bar_for_every_stage_that_lasts() -> None:
    schedule = Schedule(10, 90, 3, 200, 4)
    root = check_svg(config.schedule_svg(schedule))
    lengths = [float(r.get("width", "0")) for r in root.iter(RECT) if r.get("class", "").startswith("gv-c")]
    # 10, 90 and 200 of 375 steps (a quarter more than the 300 with an end) on 620 pixels, rounded to a tenth.
    assert lengths == pytest.approx([620 * n / 375 for n in (10, 90, 200, 75)], abs=0.06)
    assert {"warm-up", "projection", "joint", "cool-down", "10", "100", "300"} <= set(svg_texts(root))


def test_a_stage_without_steps_has_no_bar() -> None:
    root = check_svg(config.schedule_svg(Schedule(0, 90, 3, 200, 4)))
    lengths = [float(r.get("width", "0")) for r in root.iter(RECT) if r.get("class", "").startswith("gv-c")]
    assert lengths[0] == 0


def test_the_budget_shows_its_target_and_its_exceptions() -> None:
    page = parse(config.budget_html(Budget(size_bytes=20_000, exceptions={"head.*": LayerBudget(bit_range=(8, 8), max_sparsity=0.3)})))
    assert ["target", "at most 20.0 kB"] in page.cells
    assert ["head.*", "no", "8", "–", "30 %"] in page.cells


def test_the_table_of_slices_compresses_indices_and_names_roles() -> None:
    page = parse(groups.group_html(dummies.groups_of(VGG)[3]))
    assert ["features.0.weight", "0", "3", "1", "producer"] in page.cells
    assert ["features.3.weight", "1", "3-5, 10", "4", "consumer"] in page.cells


def test_the_table_of_families_counts_groups_and_elements() -> None:
    page = parse(groups.groups_html(dummies.groups_of(VGG)))
    row = ["features.0", "features", "4", "112", "features.0.weight, features.0.bias", "features.3.weight"]
    assert row in page.cells
    assert len(page.cells) == 1 + 7


def test_what_is_protected_stands_with_its_reason_and_operator() -> None:
    page = parse(groups.protected_html(dummies.protected_of(VGG)))
    assert ["rnn.weight_hh", "no rule for this operator", "lstm"] in page.cells


def test_the_trace_counts_its_operators_and_lists_its_nodes() -> None:
    page = parse(trace.trace_html(dummies.trace_of(dummies.vgg7_graph())))
    assert ["conv2d", "6"] in page.cells
    assert ["op0", "conv2d", "1 × 128 × 32 × 32", "float32", "features.0", "net.py:12"] in page.cells


def test_the_graph_draws_every_vertex_and_the_bits_of_its_quantizers() -> None:
    graph = dummies.vgg7_graph()
    root = check_svg(qadg.qadg_svg(graph, weight_bits={row["layer"]: row["bits"] for row in VGG.layers}))
    boxes = [r for r in root.iter(RECT) if r.get("class") == "gv-box"]
    assert len(boxes) == len(graph.vertices)
    assert svg_texts(root).count("conv2d") == 6
    assert {"W 8", "W 3", "A"} <= set(svg_texts(root))
    assert any("weight quantizer: features.0 " in title for title in svg_titles(root))
    heads = [p for p in root.iter("{http://www.w3.org/2000/svg}path") if p.get("class") == "gv-head"]
    assert len(heads) == len(graph.edges)


def test_a_large_graph_is_drawn_by_module_with_counted_quantizers() -> None:
    graph = dummies.transformer_graph(12)
    boxes, edges = qadg.collapse(graph, 30)
    assert len(boxes) <= 30 < len(graph.vertices)
    assert "e.layer.11" in " ".join(box.head for box in boxes) or "encoder.layer.11" in " ".join(box.head for box in boxes)
    # Each encoder layer: query, key, value, projection and two matrices of the feed-forward part.
    layer = next(box for box in boxes if box.head == "encoder.layer.5")
    assert [words for _, words in layer.badges] == ["6 W", "3 A"]
    assert all(a != b for a, b in edges)
    check_svg(qadg.qadg_svg(graph, max_boxes=30))


def test_an_operator_is_known_by_its_exact_name() -> None:
    assert qadg.operator_kind("aten.conv2d.default") == qadg.operator_kind("conv2d") != qadg.operator_kind("conv2d_but_mine")


def test_branches_are_listed_with_their_kind() -> None:
    page = parse(qadg.qadg_html(dummies.vgg7_graph()))
    assert ["features.0.weight", "attached", "conv2d", "features.0.weight", "mul_0", "5"] in page.cells
    assert "8 attached" in qadg.qadg_text(dummies.vgg7_graph())


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("narrow_range", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_staircase_has_the_levels_of_its_bits(bits: int, narrow_range: bool, exponent: float) -> None:
    quantizer = dummies.quantizer(bits, exponent=exponent, narrow_range=narrow_range)
    root = check_svg(quantizers.quantizer_svg(quantizer))
    stairs = next(p for p in root.iter("{http://www.w3.org/2000/svg}polyline") if p.get("class") == "gv-l0")
    heights = {point.split(",")[1] for point in stairs.get("points", "").split()}
    assert len(heights) == 2**bits - narrow_range  # symmetric: 2 * (2**(b-1) - 1) + 1
    assert ("symmetric" in quantizers.quantizer_text(quantizer)) is narrow_range
    assert (["codes", "symmetric"] in parse(quantizers.quantizer_html(quantizer)).cells) is narrow_range


@pytest.mark.parametrize("narrow_range", [True, False])
def test_a_staircase_of_many_levels_goes_one_step_further_down_where_codes_are_not_symmetric(narrow_range: bool) -> None:
    points = quantizers._staircase(1.0, 127.0, 1.0, 160.0, below=not narrow_range)
    assert (min(y for _, y in points), max(y for _, y in points)) == (-127 if narrow_range else -128, 127)


def test_quantizer_parameters_are_shown() -> None:
    page = parse(quantizers.quantizer_html(dummies.quantizer(3, 1.5, 1.0)))
    assert ["step size d", "0.5"] in page.cells
    assert ["bit width", "3"] in page.cells


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_an_unsigned_staircase_begins_at_zero_and_has_a_level_for_each_code(bits: int) -> None:
    quantizer = dummies.quantizer(bits, signed=False)
    root = check_svg(quantizers.quantizer_svg(quantizer))
    lines = {p.get("class"): p.get("points", "").split() for p in root.iter("{http://www.w3.org/2000/svg}polyline")}
    points = [tuple(map(float, point.split(","))) for point in lines["gv-l0"]]
    assert len({y for _, y in points}) == 2**bits
    assert points[0] == (min(x for x, _ in points), max(y for _, y in points)), "from the lower left corner"
    assert "unsigned" in quantizers.quantizer_text(quantizer)
    assert ["codes", "unsigned"] in parse(quantizers.quantizer_html(quantizer)).cells


def test_steps_of_channels_are_shown_from_the_smallest_to_the_largest() -> None:
    quantizer = dummies.quantizer(3, 1.5, channels=4)
    assert "per channel (4), d=0.5–2, q_m=1.5–6" in quantizers.quantizer_text(quantizer)
    form = WeightFormat(3, (0.5, 2.0, 1.0), (1.5, 6.0, 3.0), 1.0, axis=0, narrow_range=False)
    assert subnet.format_text(form) == "WeightFormat(3 bits, per channel (3), d=0.5–2, q_m=1.5–6, t=1)"
    assert subnet.format_text(WeightFormat(3, 0.5, 3.5, 1.0, signed=False)) == "WeightFormat(3 bits, unsigned, d=0.5, q_m=3.5, t=1)"
    assert subnet.format_text(WeightFormat(3, 0.5, 1.5, 1.0)) == "WeightFormat(3 bits, symmetric, d=0.5, q_m=1.5, t=1)"


def test_an_uncalibrated_quantizer_says_so() -> None:
    assert "not calibrated yet" in svg_texts(check_svg(quantizers.quantizer_svg(dummies.quantizer(float("nan")))))


def test_the_optimizer_shows_stage_bits_and_kept_shares() -> None:
    page = parse(optimizer.optimizer_html(dummies.optimizer_of(VGG)))
    assert {"cool-down", "features.15", "8.01 %", "50 of 100 groups zero", "Target: relative bops 3 %"} <= set(page.texts)


def test_preview_and_report_name_both_countings_of_bops() -> None:
    for html in (cost.preview_html(dummies.costs_of(VGG)), report.report_html(dummies.report_of(VGG))):
        assert "relative BOPs, paper's counting" in parse(html).text
        assert "relative BOPs, full counting" in parse(html).text


def test_the_preview_says_what_it_assumes() -> None:
    assert "half of the groups removed, evenly" in parse(cost.preview_html(dummies.costs_of(VGG))).text


def test_the_report_shows_before_and_after_of_every_layer() -> None:
    shown = dummies.report_of(VGG, {"accuracy": {"dense": 0.9305, "subnet": 0.9257}})
    page = parse(report.report_html(shown))
    row = next(cells for cells in page.cells if cells[0] == "features.0")
    assert row[:8] == ["features.0", "conv2d", "128", "96", "8", "10", "3,538,944", "2,654,208"]
    assert {"0.9257", "before 0.9305", "asked for 50 %", "of 51.9 MB (3.32 %)"} <= set(page.texts)
    assert ["torch", "2.13"] in page.cells


def test_the_picture_of_layers_shows_kept_channels_bits_and_what_is_left() -> None:
    root = check_svg(report.report_svg(dummies.report_of(VGG)))
    # 96 of 128 channels at 8 and 10 bits instead of 32 and 32: 0.75 * 80 / 1024 = 5.86 % of the BOPs, 0.75 / 4 = 18.8 % of the bytes.
    assert {"96/128", "8", "10", "5.86 %", "18.8 %"} <= set(svg_texts(root))


def test_bars_are_as_long_as_their_numbers() -> None:
    root = check_svg(report.report_svg(dummies.report_of(VGG)))
    kept = [float(r.get("width", "0")) for r in root.iter(RECT) if r.get("class") == "gv-c0" and r.get("height") == "11.5"]
    n = len(VGG.layers)
    wanted = [104 * row["channels_after"] / row["channels_before"] for row in VGG.layers] + [104 * row["bits"] / 16 for row in VGG.layers]
    assert kept[: 2 * n] == pytest.approx(wanted, abs=0.06)  # coordinates are rounded to a tenth


def test_a_report_without_layers_or_metrics_still_shows() -> None:
    values = {**dummies.report_of(VGG).to_dict(), "layers": [], "metrics": None}
    check_inert(report.report_html(SimpleNamespace(to_dict=lambda: values)))


def test_many_layers_are_cut_off_and_counted() -> None:
    rows = [{**VGG.layers[0], "layer": f"l{i}"} for i in range(150)]
    values = {**dummies.report_of(VGG).to_dict(), "layers": rows}
    shown = SimpleNamespace(to_dict=lambda: values)
    assert "… and 30 more" in svg_texts(check_svg(report.report_svg(shown)))


def test_the_subnet_counts_tensors_by_bits() -> None:
    text = subnet.subnet_text(dummies.subnet_of(VGG))
    assert "2 × 4 bits" in text and ": a × 3 × b, with 1 condition)" in text


def test_the_picture_of_a_run_shows_stages_curves_and_the_last_bits() -> None:
    schedule = Schedule.for_steps(1000)
    root = check_svg(training_picture(dummies.history_of(VGG), schedule, total_steps=1000))
    texts = set(svg_texts(root))
    assert {"warm-up", "projection", "joint", "cool-down", "features.15", "1,000", "8.01 %", "upper bound"} <= texts
    assert any(text.startswith("accuracy 97.8 %") for text in texts)
    lines = [p.get("class") for p in root.iter("{http://www.w3.org/2000/svg}polyline")]
    assert {"gv-l0", "gv-l4"} <= set(lines)


def test_the_heat_of_a_run_ends_where_the_run_is() -> None:
    history = dummies.history_of(VGG, until=0.5)
    root = check_svg(training_picture(history, Schedule.for_steps(1000), total_steps=1000))
    ends = [float(r.get("x", "0")) + float(r.get("width", "0")) for r in root.iter(RECT) if r.get("height") == "13"]
    assert max(ends) == pytest.approx(214 + 560 / 2, abs=560 / 120)  # within one of the 120 columns


@pytest.mark.parametrize("history", [[], [{"step": 0, "stage": "warm-up"}], [{"step": 5, "stage": "warm-up", "loss": float("nan")}]])
def test_a_run_that_has_just_begun_has_a_picture(history: list[dict[str, object]]) -> None:
    check_svg(training_picture(history, Schedule.for_steps(100)))


def test_a_long_run_of_many_layers_stays_small() -> None:
    encoder = dummies.transformer()
    svg = training_picture(dummies.history_of(encoder, total=20_000, every=10), Schedule.for_steps(20_000))
    assert len(svg) < 200_000
    assert "encoder.layer.11.*" in svg_texts(check_svg(svg))


def test_rows_of_modules_hold_every_layer_once() -> None:
    names = [row["layer"] for row in dummies.transformer().layers]
    rows = rows_by_module(names, 32)
    assert len(rows) <= 32
    assert sorted(name for members in rows.values() for name in members) == sorted(names)


def test_a_page_is_complete_and_forbids_every_request() -> None:
    html = standalone_page("Run </title><script>1</script>", [report.report_html(dummies.report_of(VGG))])
    page = parse(html.replace("<!DOCTYPE html>", ""))
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "script" not in {tag for tag, _ in page.tags}
    assert not {"src", "href", "style", "onload"} & {key for _, attributes in page.tags for key in attributes}
    assert '<meta name="color-scheme" content="light dark">' in html
    assert [tag for tag, _ in page.tags].count("body") == 1


def test_a_table_beyond_its_limit_counts_the_rest() -> None:
    from geta_nb.display.markup import table

    page = parse(table(("n",), [(str(i),) for i in range(10)], limit=4))
    assert len(page.cells) == 1 + 4
    assert "… and 6 more" in page.text


def test_names_in_pictures_are_shortened_with_the_whole_as_tooltip() -> None:
    rows = [{**VGG.layers[0], "layer": "deep." * 60 + "conv"}]
    values = {**dummies.report_of(VGG).to_dict(), "layers": rows}
    root = check_svg(report.report_svg(SimpleNamespace(to_dict=lambda: values)))
    assert "deep." * 60 + "conv" in svg_titles(root)
    assert all(len(text) <= 45 for text in svg_texts(root))


def test_a_metric_with_an_endless_name_does_not_widen_the_page() -> None:
    page = parse(report.report_html(dummies.report_of(VGG, {"m" * 300: "v" * 300})))
    assert {"m" * 300, "v" * 300} <= set(page.titles)
    assert not {"m" * 300, "v" * 300} & set(page.texts)
