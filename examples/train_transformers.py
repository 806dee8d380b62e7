"""Transformers: a tiny GPT-2 learns to count; resume with `--resume`.

Run it with ``python examples/train_transformers.py``. Then look at

    foundry-fastlog summary runs/transformers
"""

import sys

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

from foundry_fastlog.integrations.transformers import FastlogCallback

tokens = torch.arange(16) % 8
data = [{"input_ids": tokens, "labels": tokens}] * 64
model = GPT2LMHeadModel(
    GPT2Config(vocab_size=8, n_positions=16, n_embd=16, n_layer=1, n_head=2, bos_token_id=0)
)
args = TrainingArguments(
    "runs/transformers/checkpoints",
    max_steps=30,
    per_device_train_batch_size=8,
    learning_rate=1e-2,
    logging_steps=1,
    eval_strategy="steps",
    eval_steps=10,
    save_steps=10,
    report_to="none",
    use_cpu=not torch.cuda.is_available(),
)

with FastlogCallback("runs/transformers", step_timing=True) as callback:
    trainer = Trainer(model, args, train_dataset=data, eval_dataset=data, callbacks=[callback])
    trainer.train(resume_from_checkpoint="--resume" in sys.argv)
    trainer.evaluate()
