"""A worker of train_gpu.py, run by a Python with torch and CUDA: training steps of nanoGPT's GPT-2 124M, compiled, in bfloat16.

The model and optimizer come from a nanoGPT checkout (flash attention, fused AdamW); random tokens lie on the device.

python scripts/benchmark/nanogpt_gpu_step.py CHECKOUT BATCH CONTEXT
"""

import json
import sys

import torch  # type: ignore[import-not-found]
from turns import serve

VOCAB = 50304


def main(checkout: str, batch: int, context: int) -> None:
    sys.path.insert(0, checkout)
    from model import GPT, GPTConfig  # type: ignore[import-not-found]

    torch.manual_seed(1337)
    torch.set_float32_matmul_precision("high")
    model = GPT(GPTConfig(block_size=context, vocab_size=VOCAB, n_layer=12, n_head=12, n_embd=768, dropout=0.0, bias=False))
    model = model.to("cuda")
    optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), "cuda")
    compiled = torch.compile(model)
    tokens = torch.randint(VOCAB, (batch, context), device="cuda")
    targets = torch.randint(VOCAB, (batch, context), device="cuda")

    def steps(count: int) -> None:
        for _ in range(count):
            with torch.amp.autocast("cuda", dtype=torch.bfloat16):
                _, loss = compiled(tokens, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()

    steps(5)
    print(json.dumps({"torch": torch.__version__, "device": torch.cuda.get_device_name()}), flush=True)
    serve(steps)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
