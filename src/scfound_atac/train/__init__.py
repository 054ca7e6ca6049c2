"""Everything that trains: loops, the folder of a run, schedules, pretraining, fine-tuning and heads."""

from __future__ import annotations
