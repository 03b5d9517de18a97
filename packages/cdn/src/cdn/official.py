"""The released state-dict names and shapes of CDN and ours."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from vmr_common.errors import UserError
from vmr_train.released_weights import ReleasedNames

_RENAMES = (
    (r"^textual_encoding\.textual_encoder\.", "text.lstm."),
    (r"^frame_layer\.vis_conv\.", "frames.frame_projection."),
    (r"^frame_layer\.global_emb_fn\.", "frames.overviews."),
    (r"^frame_layer\.guide_emb_fn\.0\.", "frames.guide."),
    (r"^frame_layer\.att_fn1\.", "frames.guide_energy."),
    (r"^frame_layer\.att_fn2\.", "frames.frame_energy."),
    (r"^frame_layer\.att_fn3\.", "frames.energy."),
    (r"^frame_layer\.vis_out_conv\.", "frames.clip_projection."),
    (r"^prop_layer\.layers\.", "proposals.scales."),
    (r"^fusion_layer\.tex_linear\.", "fusion.text."),
    (r"^fusion_layer\.vis_conv\.", "fusion.video."),
    (r"^map_layer\.bn_layers\.", "map_network.norms."),
    (r"^map_layer\.convs\.(\d+)\.att_linear1\.", r"map_network.convolutions.\1.text."),
    (r"^map_layer\.convs\.(\d+)\.att_linear2\.", r"map_network.convolutions.\1.map."),
    (r"^map_layer\.convs\.(\d+)\.att_linear\.", r"map_network.convolutions.\1.mixer."),
    (r"^map_layer\.convs\.", "map_network.convolutions."),
    (r"^pred_layer\.", "scorer."),
)

_KNOWN = re.compile(
    r"^(textual_encoding\.textual_encoder\.(weight|bias)_(ih|hh)_l\d+"
    r"|(frame_layer\.(vis_conv|global_emb_fn\.\d+|guide_emb_fn\.0|att_fn[123]|vis_out_conv)"
    r"|prop_layer\.layers\.\d+\.\d+|fusion_layer\.(tex_linear|vis_conv)|pred_layer"
    r"|map_layer\.convs\.\d+(\.att_linear[12]?)?)\.(weight|bias)"
    r"|map_layer\.bn_layers\.\d+\.(weight|bias|running_mean|running_var|num_batches_tracked))$"
)

NAMES = ReleasedNames(method="CDN", known=_KNOWN, unused=re.compile(r"(?!)"), renames=_RENAMES)
_LAYER = re.compile(r"^map_layer\.convs\.(\d+)\.(weight|bias)$")
_PRODUCTS = re.compile(r"^(frame_layer\.vis_(out_)?conv|fusion_layer\.vis_conv|pred_layer)\.weight$")
"""Convolutions of size 1, which are matrix products here."""


def from_official(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state dict under our names and in our shapes.

    The kernels of the map layers, ``(out, in, k, k)`` there and as flat rows in the bank of a dynamic layer, are
    ordered by place here, ``(k * k, in, out)``.

    Raises:
        UserError: if a name is not one of the released model, or a kernel bank has a shape that does not fit
            its biases.
    """
    plain = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    converted: dict[str, Tensor] = {}
    for name, tensor in plain.items():
        ours = NAMES.ours(name)
        assert ours is not None  # nothing is unused
        layer = _LAYER.match(name)
        if layer is not None and layer[2] == "weight" and tensor.ndim == 4:
            tensor = tensor.permute(2, 3, 1, 0).flatten(0, 1).contiguous()  # (k * k, in, out)
        elif layer is not None and f"map_layer.convs.{layer[1]}.att_linear.weight" in plain:
            ours = ours.removesuffix(layer[2]) + {"weight": "bank", "bias": "bias_bank"}[layer[2]]
            biases = plain.get(f"map_layer.convs.{layer[1]}.bias")
            tensor = _by_place(name, tensor, biases) if layer[2] == "weight" else tensor
        elif _PRODUCTS.match(name) and tensor.ndim > 1:
            tensor = tensor.flatten(1)
        converted[ours] = tensor
    return converted


def _by_place(name: str, bank: Tensor, biases: Tensor | None) -> Tensor:
    dim = biases.shape[-1] if biases is not None and biases.ndim else 0
    places = bank.shape[-1] // dim**2 if dim and bank.ndim == 2 else 0
    size = round(places**0.5)
    if size == 0 or bank.shape[-1] != dim**2 * size**2:
        raise UserError(f"{name}: a kernel bank of shape {tuple(bank.shape)} does not fit {dim} channels")
    return bank.view(-1, dim, dim, size**2).permute(0, 3, 2, 1).contiguous()  # (W, k * k, in, out)
