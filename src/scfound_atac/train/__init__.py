"""Everything that takes training steps: loops, the folder of a run, schedules, pretraining, fine-tuning and heads."""

from __future__ import annotations
