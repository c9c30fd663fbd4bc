"""Images: sets of real pictures through Hugging Face `datasets`, from its hub, from folders and from parquet files."""

from whitebench_tasks.images.tasks import CIFAR10, CIFAR100, IMAGEFOLDER, IMAGENET, PARQUET

__all__ = ["CIFAR10", "CIFAR100", "IMAGEFOLDER", "IMAGENET", "PARQUET"]
