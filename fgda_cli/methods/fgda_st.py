"""Beyond the paper: FGDA with self-training (EMA teacher, ClassMix, rare-class sampling; [DACS],
[DAFormer]).
"""

from __future__ import annotations

from pydantic import Field

from .base import EVERY
from .fgda import Fgda, FgdaSettings
from .pieces.self_training import Sampling, SelfTraining, SelfTrainingSettings


class FgdaStSettings(FgdaSettings, SelfTrainingSettings):
    sampling: Sampling | None = Field(
        "rare_class", description="how source images are drawn; null: as data.sampling says"
    )


class FgdaSt(SelfTraining, Fgda):
    """FGDA's step, then cross-entropy on source classes pasted over the target, labelled by the
    teacher.
    """

    Settings = FgdaStSettings
    supports = EVERY


METHOD = FgdaSt
