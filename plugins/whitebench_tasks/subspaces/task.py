"""The task itself: its shape, the bytes it is known by, and where it comes from."""

from __future__ import annotations

from collections.abc import Mapping

from whitebench import Reference, Shape, Split, TaskSpec
from whitebench_tasks.subspaces.draws import data
from whitebench_tasks.subspaces.options import CLASSES, SubspacesOptions


def _shape(options: SubspacesOptions) -> Shape:
    return (1, options.side, options.side)


def _manifest(options: SubspacesOptions) -> Mapping[Split, str]:
    return _MANIFEST if options == SubspacesOptions() else {}


_MANIFEST: Mapping[Split, str] = {
    "train": "399acb4428aea457b24323c91c1ef8fbd5d867db45290d313ae065520438b8eb",
    "validation": "809f44d6cd25a445401b84421541a6d8f1a4f1e7886e05bc9b5bb6c3b1dbcd53",
    "test": "b73c38227798fe7e30459db948bd9a43ec675134d23efe58edae7a2415704777",
}

SUBSPACES = TaskSpec(
    name="subspaces",
    version=1,
    summary="Ten classes in linear subspaces that are known, of images or of tokens: what CRATE is built on",
    shape=_shape,
    classes=CLASSES,
    data=data,
    config=SubspacesOptions,
    manifest=_manifest,
    reference=Reference(
        title="Learning Diverse and Discriminative Representations via Maximal Coding Rate Reduction (Yu et al. 2020)",
        url="https://arxiv.org/abs/2006.08558",
    ),
)
