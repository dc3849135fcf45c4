"""What the runners on PyTorch's DataLoader share: torchvision's transforms on Pillow images."""

import numpy
import torch
from harness import MEAN, RESIZE_PX, SIZE_PX, STD


def import_torchvision_transforms():
    """torchvision.transforms, also where a CUDA build of torchvision sits beside a CPU torch.

    Its compiled operators can't be loaded then and its import fails on their missing schemas;
    its Pillow transforms need none of them.
    """
    try:
        from torchvision import transforms
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_torchvision_transforms.library = library  # its schemas live as long as it does
        from torchvision import transforms
    return transforms


class ToBytes:
    """A Pillow image to an H,W,C uint8 tensor: the cheapest way there is."""

    def __call__(self, image):
        return torch.from_numpy(numpy.array(image))


def make_transform(spec):
    transforms = import_torchvision_transforms()
    if spec["transform"] == "train":
        steps = [transforms.RandomResizedCrop(SIZE_PX), transforms.RandomHorizontalFlip()]
    else:
        steps = [transforms.Resize(RESIZE_PX), transforms.CenterCrop(SIZE_PX)]
    if spec["dtype"] == "uint8":
        steps.append(ToBytes())
    else:
        steps += [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    return transforms.Compose(steps)


class LongOrder(torch.utils.data.Sampler):
    """A shuffled order of many epochs in one, so that no epoch's edge stalls the workers."""

    def __init__(self, count, epochs=1000):
        self.count, self.epochs = count, epochs

    def __len__(self):
        return self.count * self.epochs

    def __iter__(self):
        for _ in range(self.epochs):
            yield from torch.randperm(self.count).tolist()
