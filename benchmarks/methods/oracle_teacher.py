"""DACS whose teacher knows the truth: how far self-training could go with perfect pseudo-labels."""

from __future__ import annotations

from fgda_cli.methods.base import EVERY, Method
from fgda_cli.methods.dacs import Dacs, DacsSettings


class OracleTeacher(Dacs):
    """L = CE(x_s) + CE(mixed), where the target's part of a mixed image has its true labels.

    Needs `data.target.labelled`, a data set with labels for the target's training images.
    """

    Settings = DacsSettings
    supports = EVERY

    def before_training(self, data):
        Method.before_training(self, data)

    def step(self, batch):
        self.truth = batch.labelled_ids.long()
        return super().step(batch._replace(target=batch.labelled))

    def teach(self, images, size):
        known = (self.truth != 255).float()
        return known, self.truth

    def sure_share(self, probs):
        return probs

    def labelled_step(self, batch):
        return {}


METHOD = OracleTeacher
