"""The paper's experiments: what is planned, what the tables say, and that killed calls go on."""

import statistics

import pytest

from tests.runs import tiny
from wildcat.reproduce import planning, tables
from wildcat.reproduce.planning import Effect


def made(**scores: list[float]) -> list[dict]:
    """Rows with a score for seeds 0, 1, ..."""
    return [
        {
            "key": key,
            "label": key,
            "x": None,
            "settings": {},
            "paper": {},
            "runs": [
                {"run": f"{key}-seed{seed}", "seed": seed, "scores": {"mAP": value}}
                for seed, value in enumerate(values)
            ],
        }
        for key, values in scores.items()
    ]


def judged(higher: str, lower: str, rows: list[dict]) -> dict:
    chance = tables.spread([run for row in rows for run in row["runs"]], "mAP")
    return tables.judged(Effect(f"{higher} beats {lower}", higher, lower), rows, "mAP", chance)


def test_experiments_share_runs_and_all_of_seed_0_come_first() -> None:
    known = planning.experiments(maps=(1, 2, 4, 8))
    chosen = [known[name] for name in ("table5", "table6", "table7", "figure4")]
    runs = planning.plan(chosen, tiny(), seeds=(0, 1))
    assert len(runs) == 24 == len({run.name for run in runs})  # 2 + 4 + 4 + 6 rows, of which 4 are shared
    assert [run.config.seed for run in runs] == [0] * 12 + [1] * 12
    first = runs[0]
    assert first.serves == ("table5", "table6", "table7", "figure4")
    assert (first.config.num_maps, first.config.kmax, first.config.kmin, first.config.alpha) == (1, 1, 1, 1.0)


def test_rows_differ_in_what_they_vary_alone() -> None:
    recipe = tiny(num_maps=4, alpha=0.7, kmax=0.2)
    for name, varied in {"table5": {"architecture"}, "table6": {"num_maps"}, "figure4": {"alpha"}}.items():
        configs = [run.config.to_dict() for run in planning.plan([planning.experiments()[name]], recipe, [0])]
        differing = {key for key in configs[0] if len({repr(config[key]) for config in configs}) > 1}
        assert differing == varied


def test_a_run_is_known_by_what_changes_its_scores() -> None:
    name = planning.run_name(tiny())
    assert planning.run_name(tiny()) == name
    assert planning.run_name(tiny(workers=2, save_minutes=1.0)) == name
    for changes in ({"lr": 0.2}, {"data": "synthetic:count=25,size=64"}, {"seed": 1}, {"image_size": 96}):
        assert planning.run_name(tiny(**changes)) != name


def test_every_published_row_is_in_its_table() -> None:
    known = planning.experiments()
    for name, rows in tables.published().items():
        assert set(rows) <= {row.key for row in known[name].rows}
        assert {kind for row in rows.values() for kind in row} <= set(tables.DATA_NAMES)


def test_an_effect_is_judged_against_what_settings_and_seeds_leave_unexplained() -> None:
    rows = made(a=[10.0, 12.0], b=[13.0, 15.2], c=[11.0, 12.8])
    # By hand: means of rows 11, 14.1, 11.9; seed 1 is 2 above seed 0; residuals 0, 0.1 and -0.1, twice each.
    chance = tables.spread([run for row in rows for run in row["runs"]], "mAP")
    assert chance == {"deviation": pytest.approx((0.04 / 2) ** 0.5), "freedom": 2}
    found = judged("b", "a", rows)
    assert found["difference"] == pytest.approx(3.1)
    assert found["threshold"] == pytest.approx(4.3027 * 0.02**0.5, abs=1e-4)  # t of 2 degrees at 95 %
    assert found["verdict"] == "appears"
    assert judged("a", "b", rows)["verdict"] == "reversed"
    assert judged("b", "a", made(a=[10.0, 12.0], b=[12.0, 10.5]))["verdict"] == "unclear"


def test_a_seed_under_way_does_not_hide_the_seeds_that_are_done() -> None:
    rows = made(a=[10.0, 12.0, 14.0], b=[13.0, 15.2], c=[11.0, 12.8])
    assert tables.spread([run for row in rows for run in row["runs"]], "mAP")["freedom"] == 2
    assert judged("b", "a", rows)["difference"] == pytest.approx(3.1)


def test_with_one_seed_no_verdict_is_given() -> None:
    rows = made(a=[10.0], b=[13.0], c=[])
    assert judged("b", "a", rows)["verdict"] == "one seed"
    assert judged("c", "a", rows)["verdict"] == "not measured"
    assert "chance cannot be told" in tables.told(judged("b", "a", rows))


def test_pages_before_the_first_run() -> None:
    experiment = planning.experiments()["figure4"]
    about = {"command": "wildcat ...", "data": "voc07:X", "train_split": "trainval", "split": "test", "images": 3}
    page = tables.markdown(tables.record(experiment, {}, [], tiny(), about))
    assert page.count("not measured yet |") == 6 and "beats 0: not measured yet." in page


def test_mean_and_deviation() -> None:
    assert tables.mean_and_deviation([80.0, 82.0]) == f"81.0 ± {statistics.stdev([80, 82]):.1f}"
    assert tables.mean_and_deviation([80.0]) == "80.0"
    assert tables.mean_and_deviation([]) == ""
