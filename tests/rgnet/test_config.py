"""RGNet's configuration keys with new names: the old ones are refused where written, read where runs stored them."""

import pytest

from rgnet.config import DEFAULT, Config
from vmr_common.errors import UserError
from vmr_train.cli.config import bundled_config, completed_config, to_dict

NEW = {
    "data.seconds_per_row": "feature_stride",
    "data.kept_gb": "cache_gb",
    "search.before_nms": "pre_nms_top_k",
    "search.keep": "post_nms_top_k",
    "search.pairs_at_once": "window_batch_size",
}


@pytest.mark.parametrize("old", NEW)
def test_an_old_key_is_refused_with_its_new_name(old, tmp_path):
    section, _, key = old.rpartition(".")
    message = rf"{old} is now called (--)?{section}\.{NEW[old]}$"
    with pytest.raises(UserError, match=f"^command line: --{message}"):
        bundled_config("rgnet", Config, DEFAULT, f"--{old}", "3")
    path = tmp_path / "own.yaml"
    path.write_text(f"{section}: {{{key}: 3}}\n")
    with pytest.raises(UserError, match=message):
        bundled_config("rgnet", Config, DEFAULT, "--cfg", str(path))


def test_a_stored_configuration_with_the_old_keys_is_read():
    config = bundled_config("rgnet", Config, "mad", "--data.cache_gb", "2", "--search.post_nms_top_k", "7")
    stored = to_dict(config)
    for old, new in NEW.items():
        section, _, key = old.rpartition(".")
        stored[section][key] = stored[section].pop(new)
    assert completed_config(stored, Config, "rgnet") == config
