"""The models that come with whitebench, one file each, registered as anyone would register theirs."""

from whitebench import ModelSpec, hookimpl
from whitebench_models.aot import AOT
from whitebench_models.crate import CRATE_SPEC
from whitebench_models.crate_alpha import CRATE_ALPHA
from whitebench_models.factorial import FACTORIAL
from whitebench_models.ksvd_vit import KSVD_VIT
from whitebench_models.pixels import PIXELS
from whitebench_models.sparse_coder import SPARSE_CODER
from whitebench_models.svm_vit import SVM_VIT
from whitebench_models.svr_vit import SVR_VIT
from whitebench_models.timm_models import TIMM
from whitebench_models.token_selector import TOKEN_SELECTOR
from whitebench_models.tost import TOST
from whitebench_models.vit import VIT


@hookimpl
def register_models() -> list[ModelSpec]:
    """Return the ViT, the white-box models, what lies between, timm's, raw samples as a control, and what solves."""
    white_boxes = [CRATE_SPEC, *FACTORIAL, CRATE_ALPHA, TOST, AOT, SVM_VIT, SVR_VIT, KSVD_VIT]
    return [VIT, *white_boxes, TIMM, PIXELS, TOKEN_SELECTOR, SPARSE_CODER]
