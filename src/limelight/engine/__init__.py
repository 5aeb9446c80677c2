"""The computation of attention: from queries, keys and parts to outputs, weights and statistics.

A call of `limelight.attend` travels like this:

1. `Backend.as_tensors` makes tensors of the arguments. (`backend.active()` is the `Backend` for Keras's backend.)
2. `call.make_call` checks them and returns an `AttentionCall`: queries (B, N, T, H), keys (B, K, S, H), parts, and the block of
   all scores, with padded queries and keys zeroed.
3. `Backend.prepare` applies what the score does to queries and keys alone, such as a rotation.
4. `implementations.choose` returns "dense", "fused", "online_softmax" or "blockwise", by parts, sizes (`thresholds`) and device.
5. `implementations.compute_output` runs it: "dense" is in `dense`, written with `keras.ops`; the others are methods of `Backend`,
   in the folders `jax`, `torch` and `tensorflow`. In blocks, scores, masks and normalizers see one `Block` at a time. A custom
   gradient or a compiled function takes their tensors as arguments (`partition`).
6. `AttentionCall.restore_shape` restores the leading axes of the caller's queries.

Weights are dense: all of them, or those of selected rows (`dense`). Statistics go block by block (`statistics` and
`Backend.attention_statistics`). For a new backend, write one folder whose `BACKEND` implements `Backend`.
"""
