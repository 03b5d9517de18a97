"""The released state-dict names and shapes of LEORN and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vmr_train.layers.sparse_map_conv import kernel_rows
from vmr_train.released_weights import ReleasedNames

_BLOCK = r"^object_interaction_layer\.interaction_layers\.(\d+)\."
_RENAMES = (
    (r"^textual_encoding\.textual_encoding\.textual_encoder\.", "text.gru."),
    (r"^textual_encoding\.attended_layers\.0\.sentence_linear\.", "text.sentence."),
    (r"^textual_encoding\.attended_layers\.0\.att_linear1\.", "text.energy_hidden."),
    (r"^textual_encoding\.attended_layers\.0\.att_linear2\.", "text.energy."),
    (_BLOCK + r"object_text_attention\.rcnn_linear\.", r"objects.blocks.\1.language.objects."),
    (_BLOCK + r"object_text_attention\.text_linear\.", r"objects.blocks.\1.language.text."),
    (_BLOCK + r"object_text_attention\.att_linear\.0\.", r"objects.blocks.\1.language.hidden."),
    (_BLOCK + r"object_text_attention\.att_linear\.2\.", r"objects.blocks.\1.language.gate."),
    (_BLOCK + r"object_text_attention\.norm\.", r"objects.blocks.\1.language.norm."),
    (_BLOCK + r"transformer\.self_attn\.", r"objects.blocks.\1.attention."),
    (_BLOCK + r"transformer\.linear1\.", r"objects.blocks.\1.widen."),
    (_BLOCK + r"transformer\.linear3\.", r"objects.blocks.\1.neighbours."),
    (_BLOCK + r"transformer\.linear2\.", r"objects.blocks.\1.narrow."),
    (_BLOCK + r"transformer\.norm1\.", r"objects.blocks.\1.attention_norm."),
    (_BLOCK + r"transformer\.norm2\.", r"objects.blocks.\1.feed_forward_norm."),
    (r"^object_interaction_layer\.attendtive_pool\.text_linear\.", "objects.pool.text."),
    (r"^object_interaction_layer\.attendtive_pool\.batch_norm\.", "objects.pool.norm."),
    (r"^object_interaction_layer\.sentinel_vector$", "objects.sentinel"),
    (r"^object_interaction_layer\.position_encoding\.0\.", "objects.box_hidden."),
    (r"^object_interaction_layer\.position_encoding\.3\.", "objects.box_projection."),
    (r"^object_interaction_layer\.rcnn_linear\.", "objects.projection."),
    (r"^object_interaction_layer\.norm\.", "objects.norm."),
    (r"^frame_layer\.vis_conv\.", "clips.projection."),
    (r"^frame_layer\.global_conv\.", "clips.clip_projection."),
    (r"^frame_layer\.norm\.", "clips.norm."),
    (r"^fusion_layer\.tex_linear\.", "fusion.text."),
    (r"^fusion_layer\.vis_conv\.", "fusion.video."),
    (r"^map_layer\.bn_layers\.", "map_network.norms."),
    (r"^map_layer\.convs\.", "map_network.convolutions."),
    (r"^pred_layer\.", "scorer."),
)

_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_KNOWN = re.compile(
    r"^(textual_encoding\.(textual_encoding\.textual_encoder\.(weight|bias)_(ih|hh)_l\d+(_reverse)?"
    r"|attended_layers\.0\.(sentence_linear|att_linear[12])\.(weight|bias))"
    r"|object_interaction_layer\.(sentinel_vector|true_tensor|(position_encoding\.[03]|rcnn_linear)\.(weight|bias)"
    rf"|norm\.{_NORM}|attendtive_pool\.(text_linear\.(weight|bias)|batch_norm\.{_NORM})"
    r"|interaction_layers\.\d+\.(object_text_attention\.((rcnn_linear|text_linear|att_linear\.[02])\.(weight|bias)"
    rf"|norm\.{_NORM})|transformer\.(self_attn\.(in_proj_(weight|bias)|out_proj\.(weight|bias))"
    rf"|linear[123]\.(weight|bias)|norm[12]\.{_NORM})))"
    rf"|frame_layer\.((vis_conv|global_conv)\.(weight|bias)|norm\.{_NORM})"
    r"|(fusion_layer\.(tex_linear|vis_conv)|map_layer\.convs\.\d+|pred_layer)\.(weight|bias)"
    rf"|map_layer\.bn_layers\.\d+\.{_NORM})$"
)
_UNUSED = re.compile(r"^object_interaction_layer\.true_tensor$")
"""A constant."""

NAMES = ReleasedNames(method="LEORN", known=_KNOWN, unused=_UNUSED, renames=_RENAMES)
_PRODUCTS = re.compile(r"^(frame_layer\.(vis|global)_conv|fusion_layer\.vis_conv|pred_layer)\.weight$")
"""Convolutions of size 1, which are matrix products here."""
_MAPS = re.compile(r"^map_layer\.convs\.\d+\.weight$")


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict, or gradients, under our names and in our shapes; constants are left out.

    Raises:
        UserError: if a name is not one of the released model.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        plain = name.removeprefix("module.")
        ours = NAMES.ours(plain)
        if ours is None:
            continue
        if _PRODUCTS.match(plain) and tensor.ndim > 1:
            tensor = tensor.flatten(1)
        elif _MAPS.match(plain) and tensor.ndim == 4:
            tensor = kernel_rows(tensor)
        converted[ours] = tensor
    return converted


def is_official(weights: Mapping[str, Tensor]) -> bool:
    """True where the names are those of the released model."""
    return any(_KNOWN.match(name.removeprefix("module.")) for name in weights)
