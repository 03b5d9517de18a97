"""The released state-dict names of CFMR (MindSpore) and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vmr_train.released_weights import DECODER_LAYER_RENAMES, ReleasedNames

_RENAMES = (
    (r"^mask_vec$", "mask_token"),
    (r"^start_vec$", "start_token"),
    (r"^txt_pred_vec$", "text_summary_token"),
    (r"^frame_fc\.", "frame_projection."),
    (r"^word_fc\.", "word_projection."),
    (r"^fc_comp\.", "classifier."),
    (r"^vid_encoder\.vid_necks\.", "video_encoder.neck."),
    (r"^txt_encoder\.txt_necks\.", "text_encoder.neck."),
    (r"^vid_encoder\.vid_encoder\.decoder_layers\.", "video_encoder.encoder.layers."),
    (r"^txt_encoder\.txt_encoder\.decoder_layers\.", "text_encoder.encoder.layers."),
    (r"^cross_decoder\.decoder\.decoder_layers\.", "reconstructor.layers."),
    *DECODER_LAYER_RENAMES,
    (r"_norm\.gamma$", "_norm.weight"),
    (r"_norm\.beta$", "_norm.bias"),
)

_UNUSED = re.compile(r"^(vid_pred_vec$|(vid|txt)_encoder\.\w+_encoder\.decoder_layers\.\d+\.encoder_attn)")
"""The encoders read no memory, and an index off by one passes over the video's summary vector."""

_STACK = r"(vid_encoder\.vid_encoder|txt_encoder\.txt_encoder|cross_decoder\.decoder)\.decoder_layers\.\d+\."
_KNOWN = re.compile(
    r"^((mask|start|txt_pred|vid_pred)_vec|(frame_fc|word_fc|fc_comp)\.(weight|bias)"
    r"|(vid_encoder\.vid|txt_encoder\.txt)_necks\.[01]\.(weight|bias)"
    rf"|{_STACK}((self|encoder)_attn\.(in_proj_(weight|bias)|out_proj\.(weight|bias))"
    r"|fc[12]\.(weight|bias)|(self_attn|encoder_attn|final)_layer_norm\.(gamma|beta|weight|bias)))$"
)


NAMES = ReleasedNames(method="CFMR", known=_KNOWN, unused=_UNUSED, renames=_RENAMES)


# Same as rgn.official.from_official
def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names; unused tensors are left out.

    Raises:
        UserError: if a name is not one of the released model.
    """
    return NAMES.convert(weights)
