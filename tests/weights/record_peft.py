"""Records what the library peft makes of LoRAs, for `test_peft.py`. No test runs this.

    pip install peft && python tests/weights/record_peft.py tests/weights/cases

For each kind of settings, it writes NAME.safetensors, a random LoRA as diffusers' training scripts
save it, and NAME_merged.safetensors, the weights of the changed layers after peft's
`merge_and_unload`. All weights are zero before, so that those after are the change alone.
"""

import copy
import pathlib
import sys

import diffusers
import peft
import torch
import transformers
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

BLOCK = "down_blocks.1.attentions.0"
ATTENTION = f"{BLOCK}.transformer_blocks.0"
# Linear layers, and convolutions by 1x1 and 3x3.
U_NET = [
    *(f"{ATTENTION}.{name}" for name in ("attn1.to_q", "attn1.to_out.0", "attn2.to_k")),
    f"{BLOCK}.proj_in",
    "time_embedding.linear_1",
    "conv_in",
]
TEXT = ["q_proj", "out_proj", "fc1"]
# Name of a file -> peft's settings for the U-Net, and for the text model.
SETTINGS = {
    "peft_patterns": (
        dict(
            r=2,
            lora_alpha=3,
            rank_pattern={"attn1.to_q": 1, "to_out.0": 3},
            # A pattern with ^ is for a whole name, so one of them is for no layer.
            alpha_pattern={f"{BLOCK}.proj_in": 5, "^conv_in": 7, "^to_out.0": 100, "to_q": 0.5},
        ),
        dict(
            r=2,
            lora_alpha=4,
            rank_pattern={"fc1": 3},
            alpha_pattern={"layers.0.mlp.fc1": 6, "^encoder.layers.1.self_attn.q_proj": 7},
        ),
    ),
    "peft_rslora": (
        dict(r=3, lora_alpha=3, use_rslora=True),
        dict(r=2, lora_alpha=5, use_rslora=True),
    ),
}


def models() -> dict[str, torch.nn.Module]:
    """Returns a U-Net and a text model by their prefixes in files, as small as they can be."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=2,
        out_channels=2,
        block_out_channels=(2, 4),
        norm_num_groups=1,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=4,
        attention_head_dim=2,
    )
    text = transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=8,
            hidden_size=4,
            intermediate_size=6,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=6,
            eos_token_id=7,
        )
    )
    return {"unet": unet, "text_encoder": text}


def record(name: str, directory: pathlib.Path) -> None:
    """Writes the two files of one kind of settings."""
    layers, metadata, merged = {}, {}, {}
    targets = U_NET, TEXT
    for (prefix, model), target, settings in zip(
        models().items(), targets, SETTINGS[name], strict=True
    ):
        for parameter in model.parameters():
            torch.nn.init.zeros_(parameter)
        config = peft.LoraConfig(target_modules=target, init_lora_weights=False, **settings)
        changed = peft.get_peft_model(copy.deepcopy(model), config)
        state = get_peft_model_state_dict(changed)
        layers[f"{prefix}_lora_layers"] = {
            key.removeprefix("base_model.model."): value for key, value in state.items()
        }
        metadata[f"{prefix}_lora_adapter_metadata"] = changed.peft_config["default"].to_dict()
        after = changed.merge_and_unload().state_dict()
        merged |= {f"{prefix}.{key}": value for key, value in after.items() if value.any()}
    pipeline = diffusers.StableDiffusionPipeline
    file = f"{name}.safetensors"
    pipeline.save_lora_weights(directory, weight_name=file, **layers, **metadata)
    save_file(merged, directory / f"{name}_merged.safetensors")


if __name__ == "__main__":
    torch.manual_seed(0)
    for kind in SETTINGS:
        record(kind, pathlib.Path(sys.argv[1]))
