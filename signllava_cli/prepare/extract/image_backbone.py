"""An image backbone of transformers, such as DINOv2: one vector per image."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from signllava_cli.errors import UserError, first_line
from signllava_cli.model.hub_access import hub_options

if TYPE_CHECKING:
    import torch

IMAGENET_MEAN, IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DEFAULT_SIZE = 224
CLASS_TOKENS = ("cls_token", "class_embedding")


class ImageBackbone:
    """A model of transformers that takes images. On a GPU it computes in float16 where autocast finds that safe.

    `size`: of the square images that it takes. `width`: of its vectors.
    """

    def __init__(self, location: str, device: str) -> None:
        """Load the model from a folder or the hub; only safetensors are read.

        Raises:
            UserError: there is no such model, it lacks weights, or it does not take images.
        """
        self._device = device
        self.model = _load(location).to(device).eval()
        processor = _read_processor(location)
        self.size = _image_size(processor, self.model.config)
        self._mean = np.array(processor.get("image_mean") or IMAGENET_MEAN, np.float32)
        self._std = np.array(processor.get("image_std") or IMAGENET_STD, np.float32)
        self._has_class_token = any(
            name.rpartition(".")[2] in CLASS_TOKENS for name, _ in self.model.named_parameters()
        )
        try:
            self.width = self.vectors(np.zeros((1, self.size, self.size, 3), np.uint8)).shape[1]
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise UserError(f"{location} does not turn an image into a vector: {first_line(error)}.") from None

    def vectors(self, images: np.ndarray) -> np.ndarray:
        """float32 (N, width): the class token, or the mean of the patches of a model without one.

        Args:
            images: uint8 (N, size, size, 3), RGB.
        """
        import torch

        pixels = torch.from_numpy((images / np.float32(255) - self._mean) / self._std).permute(0, 3, 1, 2)
        is_gpu = self._device.startswith("cuda")
        with torch.inference_mode(), torch.autocast(self._device.partition(":")[0], torch.float16, enabled=is_gpu):
            hidden = self.model(pixel_values=pixels.to(self._device)).last_hidden_state
        return self._pool(hidden).float().cpu().numpy()

    def _pool(self, hidden: "torch.Tensor") -> "torch.Tensor":
        if hidden.dim() == 4:  # (N, width, rows, columns) of a convolutional model
            return hidden.mean(dim=(2, 3))
        return hidden[:, 0] if self._has_class_token else hidden.mean(dim=1)

    def digest(self) -> str:
        """Twelve digits of the SHA-256 of the weights."""
        import torch

        digest = hashlib.sha256()
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:12]


def backbone_name(location: str) -> str:
    """The name of a backbone for a layout: the hub id, or the last part of a folder's path."""
    return Path(location).resolve().name if Path(location).is_dir() else location


def _load(location: str) -> Any:
    from transformers import AutoModel

    try:
        with hub_options(location) as options:
            model, loading = AutoModel.from_pretrained(
                location, use_safetensors=True, output_loading_info=True, **options
            )
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"--dino {location} cannot be loaded: {first_line(error)}") from None
    if missing := [name for name in loading["missing_keys"] if not name.startswith("pooler.")]:  # which is not used
        raise UserError(f"--dino {location} lacks weights ({missing[0]} and {len(missing) - 1} more).")
    return model


def _read_processor(location: str) -> dict[str, Any]:
    """The settings of the model's image processor; its own code needs torchvision, and crops fingertips."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        with hub_options(location) as options:
            settings, _ = ImageProcessingMixin.get_image_processor_dict(
                location, local_files_only=options["local_files_only"]
            )
    except (OSError, UserError):
        return {}
    return dict(settings)


def _image_size(processor: dict[str, Any], config: Any) -> int:
    """The side of the images: what the processor crops to, else that of the config if positions cannot be resized."""
    for key in ("crop_size", "size"):
        value = processor.get(key)
        if isinstance(value, dict) and isinstance(value.get("height"), int):
            return int(value["height"])
    size = getattr(config, "image_size", None)
    is_resized = str(config.model_type).startswith("dino")  # their positions are resized to those of the image
    return int(size) if isinstance(size, int) and not is_resized else DEFAULT_SIZE
