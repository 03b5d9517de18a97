"""The released state-dict names of RGN and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vmr_train.released_weights import DECODER_LAYER_RENAMES, ReleasedNames

_RENAMES = (
    (r"^mask_vec$", "mask_token"),
    (r"^start_vec$", "start_token"),
    (r"^pred_vec$", "prediction_token"),
    (r"^frame_fc\.", "frame_projection."),
    (r"^word_fc\.", "word_projection."),
    (r"^fc_comp\.", "classifier."),
    (r"^fc_gauss\.", "proposal_head."),
    (r"^fc_pseudo\.", "reglance_head."),
    (r"^trans\.", "glance_transformer."),
    (r"^pseudo_trans\.", "caption_transformer."),
    (r"\.decoder1\.decoder_layers\.", ".video.layers."),
    (r"\.decoder2\.decoder_layers\.", ".text.layers."),
    *DECODER_LAYER_RENAMES,
)

_UNUSED = re.compile(r"^trans\.decoder2\.decoder_layers\.\d+\.encoder_attn")
"""The Glance Transformer's text decoder never reads a memory: these tensors take part in nothing."""

_KNOWN = re.compile(
    r"^((mask|start|pred)_vec|(frame_fc|word_fc|fc_comp|fc_gauss|fc_pseudo)\.(weight|bias)"
    r"|(pseudo_)?trans\.decoder[12]\.decoder_layers\.\d+\."
    r"((self|encoder)_attn\.(in_proj_(weight|bias)|out_proj\.(weight|bias))"
    r"|fc[12]\.(weight|bias)|(self_attn|encoder_attn|final)_layer_norm\.(weight|bias)))$"
)


NAMES = ReleasedNames(method="RGN", known=_KNOWN, unused=_UNUSED, renames=_RENAMES)


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names; unused tensors are left out.

    Raises:
        UserError: if a name is not one of the released model.
    """
    return NAMES.convert(weights)
