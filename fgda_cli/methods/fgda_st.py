"""Beyond the paper: FGDA with self-training (EMA teacher, ClassMix, rare-class sampling; [DACS], [DAFormer])."""

from __future__ import annotations

from .fgda import Fgda, FgdaSettings
from .pieces.self_training import SelfTraining, SelfTrainingSettings


class FgdaStSettings(FgdaSettings, SelfTrainingSettings):
    pass


class FgdaSt(SelfTraining, Fgda):
    """FGDA's step, then cross-entropy on source classes pasted over the target, labelled by the teacher."""

    Settings = FgdaStSettings
    sampling = "rare_class"


METHOD = FgdaSt
