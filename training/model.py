"""The demo model: Hugging Face's XCLIPModel, small, with heads for auxiliary losses that are dropped at export."""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import XCLIPConfig, XCLIPModel

IMAGE, PATCH, FRAMES, CONTEXT = 96, 16, 8, 24
GRID = IMAGE // PATCH
JOINTS = 11
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def config(vocabulary, width=128, layers=4):
    heads = 4
    return XCLIPConfig(
        text_config=dict(
            vocab_size=vocabulary, hidden_size=128, intermediate_size=512, num_hidden_layers=3,
            num_attention_heads=heads, max_position_embeddings=CONTEXT, hidden_act="quick_gelu",
            layer_norm_eps=1e-5, bos_token_id=vocabulary - 2, eos_token_id=vocabulary - 1,
            pad_token_id=vocabulary - 1,
        ),
        vision_config=dict(
            hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers,
            num_attention_heads=heads, image_size=IMAGE, patch_size=PATCH, num_frames=FRAMES,
            mit_hidden_size=128, mit_intermediate_size=512, mit_num_hidden_layers=1,
            mit_num_attention_heads=heads, hidden_act="quick_gelu", layer_norm_eps=1e-5, drop_path_rate=0.0,
        ),
        projection_dim=128, prompt_layers=2, prompt_alpha=0.1, prompt_num_attention_heads=heads,
        prompt_attention_dropout=0.0, prompt_projection_dropout=0.0,
    )


def pixels(frames):
    """uint8 frames (B, T, H, W, 3) as the model's input (B, T, 3, H, W)."""
    x = torch.as_tensor(frames).permute(0, 1, 4, 2, 3).float().div_(255)
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class QuickGelu(torch.autograd.Function):
    """x·sigmoid(1.702x), computed as silu(1.702x)/1.702: three times faster on a CPU than in single operations."""

    @staticmethod
    def forward(context, x):
        scaled = x * 1.702
        context.save_for_backward(scaled)
        return F.silu(scaled).mul_(1 / 1.702)

    @staticmethod
    def backward(context, gradient):
        # The two factors cancel.
        return torch.ops.aten.silu_backward(gradient, *context.saved_tensors)


class Activation(nn.Module):
    def forward(self, x):
        return QuickGelu.apply(x)


def fuse_activations(module):
    """Replaces every quick_gelu of `module`; it has no weights, so checkpoints stay the same."""
    for name, child in module.named_children():
        if type(child).__name__ == "QuickGELUActivation":
            setattr(module, name, Activation())
        else:
            fuse_activations(child)


class Net(nn.Module):
    """XCLIPModel in two steps (video, then texts), as the plugin computes it."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.xclip = XCLIPModel(config)
        fuse_activations(self.xclip)
        width, joint = config.vision_config.hidden_size, config.projection_dim
        self.pose_head = nn.Linear(width, 2 * JOINTS * 2)
        self.patch_head = nn.Linear(width, JOINTS * 3)
        self.frame_head = nn.Linear(width, 8 + 2)
        self.action_head = nn.Linear(joint, 20)
        self.way_head = nn.Linear(joint, 3)
        self.attention = {}

    def watch_attention(self):
        """Keeps queries and keys of every layer but the first, for the attention loss."""
        for index, layer in enumerate(self.xclip.vision_model.encoder.layers):
            if index == 0:
                continue
            for name in ("q_proj", "k_proj"):
                def keep(module, inputs, output, key=(index, name)):
                    self.attention[key] = output
                getattr(layer.self_attn, name).register_forward_hook(keep)

    def video(self, x):
        """(B, T, 3, H, W) -> video vector (B, E), patch features (B, P, E), CLS (B*T, D), patches (B*T, P, D)."""
        m = self.xclip
        batch, frames = x.shape[:2]
        out = m.vision_model(pixel_values=x.flatten(0, 1))
        cls = out.pooler_output
        mit = m.mit(m.visual_projection(cls).view(batch, frames, -1))
        patches = m.prompts_visual_layernorm(out.last_hidden_state[:, 1:])
        mean = patches.view(batch, frames, patches.shape[1], -1).mean(1) @ m.prompts_visual_projection
        return mit.pooler_output, mean, cls, patches

    def text(self, ids):
        """(K, L) token ids -> (K, E)."""
        return self.xclip.text_projection(self.xclip.text_model(input_ids=ids).pooler_output)

    def logits(self, video, patches, text):
        """(B, E), (B, P, E), (K, E) -> (B, K)."""
        text = text.unsqueeze(0).expand(video.shape[0], -1, -1)
        text = text + self.xclip.prompts_generator(text, patches)
        similarity = torch.einsum("bd,bkd->bk", F.normalize(video, dim=-1), F.normalize(text, dim=-1))
        return self.xclip.logit_scale.exp() * similarity


@torch.no_grad()
def initialise(net):
    """Start values fit for training from scratch.

    Hugging Face's own are meant to be overwritten by a checkpoint: `mit.position_embedding` and the prompt
    generator start near deviation 1, token embeddings at 0.02.
    """
    for name, p in net.xclip.named_parameters():
        if "prompts_generator" in name and p.ndim == 2:
            last = name.endswith(("proj.weight", "mlp.3.weight")) and not name.endswith(
                ("q_proj.weight", "k_proj.weight", "v_proj.weight")
            )
            nn.init.normal_(p, std=p.shape[1] ** -0.5 * (0.5 if last else 1.0))
        elif name == "mit.position_embedding":
            nn.init.normal_(p, std=0.1)
        elif name == "vision_model.embeddings.position_embedding.weight":
            # Patch embeddings of flat drawings have deviation 3.6: positions must be as loud, and similar for
            # neighbours, or nothing learns where anything is. Plane waves of low random frequency are both.
            g = torch.Generator().manual_seed(5)
            y, x = torch.meshgrid(torch.linspace(-1, 1, GRID), torch.linspace(-1, 1, GRID), indexing="ij")
            frequency = torch.randn(2, p.shape[1], generator=g) * 1.6
            phase = torch.rand(p.shape[1], generator=g) * 2 * math.pi
            wave = y.reshape(-1, 1) * frequency[0] + x.reshape(-1, 1) * frequency[1] + phase
            p[0].normal_(std=0.25)
            p[1:] = torch.sin(wave) * 1.6 * 2**0.5
        elif name == "text_model.embeddings.token_embedding.weight":
            nn.init.normal_(p, std=0.2)
        elif name == "text_model.embeddings.position_embedding.weight":
            nn.init.normal_(p, std=0.05)
        elif "message_fc.weight" in name:
            nn.init.normal_(p, std=0.5 * p.shape[1] ** -0.5)
