"""The released state-dict names of RGNet and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vmr_common.errors import UserError
from vmr_train.released_weights import ReleasedNames

_RENAMES = (
    (r"^global_rep_token$", "encoder.token"),
    (r"^global_rep_pos$", "encoder.token_position"),
    (r"^query_embed\.weight$", "decoder.anchors"),
    (r"^input_vid_proj\.", "video_projection."),
    (r"^input_txt_proj\.", "text_projection."),
    (r"_projection\.0\.LayerNorm\.", "_projection.norm1."),
    (r"_projection\.1\.LayerNorm\.", "_projection.norm2."),
    (r"_projection\.0\.net\.1\.", "_projection.linear1."),
    (r"_projection\.1\.net\.1\.", "_projection.linear2."),
    (r"^transformer\.prop_instance\.", "encoder.gate."),
    (r"^transformer\.t2v_encoder\.layers\.(\d+)\.", r"encoder.cross_layers.\1."),
    (r"^transformer\.encoder\.layers\.(\d+)\.", r"encoder.self_layers.\1."),
    (r"^(encoder\.\w+_layers\.\d+)\.self_attn\.", r"\1.attention."),
    (r"^transformer\.decoder\.", "decoder."),
    (r"^decoder\.query_scale\.", "decoder.scale_head."),
    (r"^decoder\.ref_point_head\.", "decoder.position_head."),
    (r"^decoder\.ref_anchor_head\.", "decoder.width_head."),
    (r"^decoder\.bbox_embed\.", "decoder.refine."),
    (r"\.sa_qcontent_proj\.", ".self_attention.query_content."),
    (r"\.sa_qpos_proj\.", ".self_attention.query_position."),
    (r"\.sa_kcontent_proj\.", ".self_attention.key_content."),
    (r"\.sa_kpos_proj\.", ".self_attention.key_position."),
    (r"\.sa_v_proj\.", ".self_attention.value."),
    (r"\.ca_qcontent_proj\.", ".cross_attention.query_content."),
    (r"\.ca_qpos_proj\.", ".cross_attention.query_position."),
    (r"\.ca_qpos_sine_proj\.", ".cross_attention.query_sine."),
    (r"\.ca_kcontent_proj\.", ".cross_attention.key_content."),
    (r"\.ca_kpos_proj\.", ".cross_attention.key_position."),
    (r"\.ca_v_proj\.", ".cross_attention.value."),
    (r"^(decoder\.layers\.\d+)\.self_attn\.out_proj\.", r"\1.self_attention.out_proj."),
    (r"^(decoder\.layers\.\d+)\.cross_attn\.out_proj\.", r"\1.cross_attention.out_proj."),
    (r"(_?layers\.\d+)\.linear([12])\.", r"\1.feed_forward.linear\2."),
    (r"^span_embed\.", "span_head."),
    (r"^class_embed\.", "class_head."),
    (r"^saliency_proj1\.", "saliency_frames."),
    (r"^saliency_proj2\.", "saliency_token."),
    (r"^saliency_proj3\.", "retrieval_head."),
    (r"^adapter_layer\.", "adapter."),
)

_UNUSED = re.compile(r"^(saliency_proj\.|txt_position_embed\.)")
"""A table of text positions and an earlier saliency head that no forward pass reads."""

_WB = r"\.(weight|bias)"
_ATTENTION = rf"self_attn\.(in_proj_(weight|bias)|out_proj{_WB})"
_DECODER_LAYER = (
    rf"((sa|ca)_(qcontent|qpos|kcontent|kpos|v)_proj{_WB}|ca_qpos_sine_proj{_WB}|(self|cross)_attn\.out_proj{_WB}"
    rf"|linear[12]{_WB}|norm[123]{_WB})"
)
_KNOWN = re.compile(
    r"^(global_rep_(token|pos)|query_embed\.weight"
    rf"|input_(vid|txt)_proj\.[01]\.(LayerNorm|net\.1){_WB}"
    rf"|transformer\.prop_instance{_WB}"
    rf"|transformer\.(t2v_encoder|encoder)\.layers\.\d+\.({_ATTENTION}|linear[12]{_WB}|norm[12]{_WB})"
    rf"|transformer\.decoder\.(layers\.\d+\.{_DECODER_LAYER}|norm{_WB}"
    rf"|(query_scale|ref_point_head|ref_anchor_head)\.layers\.[01]{_WB}|bbox_embed\.\d+\.layers\.[012]{_WB})"
    rf"|span_embed\.layers\.[012]{_WB}|(class_embed|saliency_proj[123]?){_WB}"
    rf"|txt_position_embed\.(position_embeddings\.weight|LayerNorm{_WB})|adapter_layer\.layers\.[01]{_WB})$"
)

NAMES = ReleasedNames(method="RGNet", known=_KNOWN, unused=_UNUSED, renames=_RENAMES)
"""The refinement of the last layer's anchor is unused, too, which no name alone tells: see `from_official`."""
_REFINE = re.compile(r"^decoder\.refine\.(\d{1,4})\.")


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names; unused tensors are left out.

    Raises:
        UserError: if a name is not one of the released model.
    """
    renamed = NAMES.convert(weights)
    last = max((int(found[1]) for name in renamed if (found := _REFINE.match(name))), default=None)
    if last is None:
        raise UserError(
            "the weights hold no transformer.decoder.bbox_embed, expected a released RGNet checkpoint"
        )
    return {
        name: tensor for name, tensor in renamed.items() if not name.startswith(f"decoder.refine.{last}.")
    }
