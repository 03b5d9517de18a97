"""The performance page shows every csv that is there, with its machine, and skips what is not."""

import pytest
from performance_page import render


@pytest.fixture
def folders(tmp_path):
    results, images = tmp_path / "results", tmp_path / "images"
    results.mkdir()
    images.mkdir()
    return results, images


def test_a_csv_becomes_a_table_below_what_its_rows_share(folders):
    results, images = folders
    (results / "rgn-some-cpu.csv").write_text(
        "case,device,threads,ms_per_query,peak_mb,torch\n"
        "training step,some-cpu,2,372.9,,2.9\ninference,some-cpu,2,35.69,,2.9\n"
    )
    text = render(results, images)
    assert "## RGN: a training step" in text
    assert "**some-cpu**, threads 2, torch 2.9:" in text
    assert "| case | ms per query |" in text
    assert "| training step | 372.9 |" in text
    assert "| inference | 35.69 |" in text
    assert "peak" not in text
    assert "## CFMR" not in text


def test_a_longer_name_wins_and_each_machine_has_a_table(folders):
    results, images = folders
    (results / "cdn-memory-cpu.csv").write_text("form,mb\nplain,8\nours,1\n")
    (results / "cdn-cpu.csv").write_text("case,ms\na,1\nb,2\n")
    (results / "cdn-nvidia-h200.csv").write_text("case,ms\na,0.5\nb,\n")
    text = render(results, images)
    memory = text.partition("## CDN: memory of a training step")[2]
    assert "| plain | 8 |" in memory
    speed = text.partition("## CDN: a training step")[2].partition("\n## ")[0]
    assert "**cpu**:\n\n| case | ms |" in speed
    assert "**nvidia-h200**:\n\n| case | ms |" in speed
    assert "| b | - |" in speed


def test_the_page_says_what_is_slower_than_the_plain_form_or_short_of_its_goal(folders):
    results, images = folders
    (results / "against-plain-cpu.csv").write_text(
        "case,ratio,goal\nrgn train,0.40,0.42\ncdn infer,0.90,0.65\ncdn train,1.20,0.75\n"
    )
    text = render(results, images)
    assert "\nSlower than the plain form: cdn train (1.20)." in text
    assert "\nShort of the goal: cdn infer (0.90, goal 0.65), cdn train (1.20, goal 0.75)." in text


def test_what_no_section_knows_is_shown_at_the_end(folders):
    results, images = folders
    (results / "brand-new-cpu.csv").write_text("case,ms\na,1\nb,2\n")
    (results / "features-cpu.csv").write_text("case,ms\na,1\nb,2\n")
    text = render(results, images)
    assert text.index("## Reading and pooling") < text.index("## brand-new-cpu")


def test_a_plot_is_shown_where_it_is_drawn(folders):
    results, images = folders
    (results / "flops.csv").write_text("package,gflop\nrgn,1\ncdn,2\n")
    assert "](images/" not in render(results, images)
    (images / "rgn.svg").write_text("<svg/>")
    assert "](images/rgn.svg)" in render(results, images)


def test_parity_is_left_to_the_results_page(folders):
    results, images = folders
    (results / "parity.csv").write_text("package,stage\nrgn,losses\n")
    assert "losses" not in render(results, images)
