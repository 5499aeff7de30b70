"""A worker of train_cpu.py, run by a Python with torch: training steps of nanoGPT's CPU setting, timed as ours are.

The model and optimizer come from a nanoGPT checkout; the loop around them is that of its train.py on a CPU: batches
from a memory-mapped file of tokens, gradient clipping, eager mode, the loss read every ten steps.
"""

import sys
import tempfile

import numpy as np
import torch  # type: ignore[import-not-found]
from turns import serve

BATCH, CONTEXT, VOCAB, READ_EVERY = 12, 64, 65, 10


def main(checkout: str, threads: int) -> None:
    sys.path.insert(0, checkout)
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    torch.set_num_threads(threads)
    torch.manual_seed(1337)
    config = GPTConfig(block_size=CONTEXT, vocab_size=VOCAB, n_layer=4, n_head=4, n_embd=128, dropout=0.0, bias=False)
    model = GPT(config)
    optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), "cpu")
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        np.random.default_rng(0).integers(0, VOCAB, 1_000_000).astype(np.uint16).tofile(file.name)

        def batch():
            data = np.memmap(file.name, dtype=np.uint16, mode="r")
            starts = torch.randint(len(data) - CONTEXT, (BATCH,))
            rows = [torch.from_numpy(data[i : i + CONTEXT + 1].astype(np.int64)) for i in starts]
            return torch.stack([row[:-1] for row in rows]), torch.stack([row[1:] for row in rows])

        def steps(count: int) -> None:
            for index in range(count):
                tokens, targets = batch()
                _, loss = model(tokens, targets)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                if index % READ_EVERY == READ_EVERY - 1 or index == count - 1:
                    loss.item()

        steps(5)
        serve(steps)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
